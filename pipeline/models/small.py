"""Small models of the families of the paper's ImageNet models, and a plain one, for images of about 32 pixels.

They have the blocks of the networks they are named after, batch normalisation included, and less than a hundredth of
their cost, so that the paper's ImageNet recipe runs on two cores in minutes. Initial parameters are torch's own.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


def _unit(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Return convolution, batch normalisation, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class _Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3, two 3x3 in a row, and pooled (Szegedy et al. 2016, figure 5)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.one = _unit(inputs, width, 1)
        self.three = nn.Sequential(_unit(inputs, width // 2, 1), _unit(width // 2, width, 3))
        self.five = nn.Sequential(_unit(inputs, width // 2, 1), _unit(width // 2, width, 3), _unit(width, width, 3))
        self.pooled = nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), _unit(inputs, width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features of all branches, concatenated."""
        return torch.cat([branch(features) for branch in self.children()], dim=1)


class _Residual(nn.Module):
    """Two pre-activated 3x3 convolutions and a shortcut around them (He et al. 2016, identity mappings)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.around = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return the transformed features."""
        active = torch.relu(self.norm1(features))
        around: Tensor = self.around(active if isinstance(self.around, nn.Conv2d) else features)
        changed: Tensor = self.conv2(torch.relu(self.norm2(self.conv1(active))))
        return changed + around


class _InceptionResidual(nn.Module):
    """An Inception block whose joined branches are added to its input (Szegedy et al. 2016, Inception-ResNet)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = _unit(width, width // 4, 1)
        self.three = nn.Sequential(_unit(width, width // 4, 1), _unit(width // 4, width // 4, 3))
        self.join = nn.Conv2d(width // 2, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        """Return the transformed features."""
        branches = torch.cat([self.one(features), self.three(features)], dim=1)
        changed: Tensor = self.norm(self.join(branches))
        return torch.relu(features + changed)


def _head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def _inception(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(
        _unit(shape[0], 16, 3),
        _Inception(16, 12),
        nn.MaxPool2d(2),
        _Inception(48, 24),
        nn.MaxPool2d(2),
        _Inception(96, 40),
        *_head(160, classes),
    )


def _resnet(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, padding=1, bias=False),
        _Residual(16, 24),
        _Residual(24, 48, stride=2),
        _Residual(48, 96, stride=2),
        nn.BatchNorm2d(96),
        nn.ReLU(),
        *_head(96, classes),
    )


def _inception_resnet(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(
        _unit(shape[0], 24, 3),
        _InceptionResidual(24),
        _unit(24, 64, 3, stride=2),
        _InceptionResidual(64),
        _unit(64, 128, 3, stride=2),
        _InceptionResidual(128),
        *_head(128, classes),
    )


def _vgg(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(
        _unit(shape[0], 16, 3),
        _unit(16, 24, 3),
        nn.MaxPool2d(2),
        _unit(24, 48, 3),
        nn.MaxPool2d(2),
        _unit(48, 96, 3),
        nn.MaxPool2d(2),
        _unit(96, 96, 3),
        *_head(96, classes),
    )


def _cnn(shape: Shape, classes: int) -> nn.Module:
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * math.ceil(height / 4) * math.ceil(width / 4), 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


ARCHITECTURES: Mapping[str, Callable[[Shape, int], nn.Module]] = {
    "small_inception": _inception,
    "small_resnet": _resnet,
    "small_inception_resnet": _inception_resnet,
    "small_vgg": _vgg,
    "small_cnn": _cnn,
}
