"""The paper's architectures A to D (appendix B, table 6), for images of any size.

Table 6 gives no strides, paddings or initialisers; they are those of the authors' code: B strides 2, 2, 1 with same,
valid, valid padding; D's hidden layers are He-normal, all others Glorot-uniform, biases zero.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set

import torch
from torch import nn

from gradshard.storage.errors import GradshardError

Shape = tuple[int, int, int]


def build(architecture: str, sample_shape: Shape, classes: int, *, seed: int) -> nn.Module:
    """Build one of ``ARCHITECTURES``, freshly initialised by the seed.

    Raises:
        GradshardError: the images are too small for it.
    """
    try:
        model = ARCHITECTURES[architecture](sample_shape, classes)
    except _TooSmallError as error:
        raise GradshardError(
            f"images of {sample_shape[1]}x{sample_shape[2]} pixels are too small for architecture {architecture}: "
            "choose another one"
        ) from error
    _initialise(model, _HE_NORMAL.get(architecture, set()), torch.Generator().manual_seed(seed))
    return model


class _TooSmallError(Exception):
    """A convolution's kernel is larger than its input."""


def _a(shape: Shape, classes: int) -> nn.Module:
    channels, height, width = shape
    size = _conv(_conv((height, width), 5), 5)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 64, 5),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(64, 64, 5),
            relu2=nn.ReLU(),
            drop2=nn.Dropout(0.25),
            flatten=nn.Flatten(),
            fc3=nn.Linear(64 * math.prod(size), 128),
            relu3=nn.ReLU(),
            drop3=nn.Dropout(0.5),
            fc4=nn.Linear(128, classes),
        )
    )


def _b(shape: Shape, classes: int) -> nn.Module:
    channels, height, width = shape
    size = _conv(_conv((math.ceil(height / 2), math.ceil(width / 2)), 6, stride=2), 5)
    return nn.Sequential(
        OrderedDict(
            drop0=nn.Dropout(0.2),
            pad1=nn.ZeroPad2d((*_same(width, 8, 2), *_same(height, 8, 2))),
            conv1=nn.Conv2d(channels, 64, 8, stride=2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(64, 128, 6, stride=2),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(128, 128, 5),
            relu3=nn.ReLU(),
            drop3=nn.Dropout(0.5),
            flatten=nn.Flatten(),
            fc4=nn.Linear(128 * math.prod(size), classes),
        )
    )


def _c(shape: Shape, classes: int) -> nn.Module:
    channels, height, width = shape
    size = _conv(_conv((height, width), 3), 3)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 128, 3),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(128, 64, 3),
            relu2=nn.ReLU(),
            drop2=nn.Dropout(0.25),
            flatten=nn.Flatten(),
            fc3=nn.Linear(64 * math.prod(size), 128),
            relu3=nn.ReLU(),
            drop3=nn.Dropout(0.5),
            fc4=nn.Linear(128, classes),
        )
    )


def _d(shape: Shape, classes: int) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = math.prod(shape)
    for number in range(1, 5):
        layers[f"fc{number}"] = nn.Linear(width, 300)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"drop{number}"] = nn.Dropout(0.5)
        width = 300
    layers["fc5"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


ARCHITECTURES: Mapping[str, Callable[[Shape, int], nn.Module]] = {"A": _a, "B": _b, "C": _c, "D": _d}
_HE_NORMAL = {"D": {"fc1", "fc2", "fc3", "fc4"}}


def _conv(size: tuple[int, int], kernel: int, stride: int = 1) -> tuple[int, int]:
    """Return the output size of a convolution without padding."""
    if min(size) < kernel:
        raise _TooSmallError
    height, width = ((side - kernel) // stride + 1 for side in size)
    return height, width


def _same(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after that makes the output ceil(side / stride) long, the larger half after."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def _initialise(model: nn.Module, he_normal: Set[str], generator: torch.Generator) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if name in he_normal:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            else:
                nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
