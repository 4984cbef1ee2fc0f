"""Auxiliary classifiers: heads on an inner layer, whose loss is added in training (Szegedy et al. 2016, section 4).

They are used in training only: models are published without them, and no attack uses them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gradshard.storage.errors import GradshardError

# The layer under TF-slim's head, the last one of 17x17 features, by the architecture's class in its library.
_LAYERS = {
    "timm.models.inception_v3.InceptionV3": "Mixed_6e",
    "timm.models.inception_v4.InceptionV4": "features.17",
    "timm.models.inception_resnet_v2.InceptionResnetV2": "repeat_1",
    "torchvision.models.inception.Inception3": "Mixed_6e",
}
_POOLED, _STRIDE = 5, 3


class AuxiliaryHead(nn.Module):
    """TF-slim's head: 5x5 means at stride 3, two convolutions to one 768-vector, and a linear classifier."""

    def __init__(self, layer: str, features: torch.Size, classes: int, *, weight: float) -> None:
        """Make a fresh head.

        Args:
            layer: the name of the model's layer under the head.
            features: (C, H, W) of that layer's output.
            classes: the number of logits.
            weight: the weight of the head's loss beside the model's own.
        """
        super().__init__()
        self.layer, self.weight = layer, weight
        channels, height, width = features
        left = ((height - _POOLED) // _STRIDE + 1, (width - _POOLED) // _STRIDE + 1)
        self._layers = nn.Sequential(
            nn.AvgPool2d(_POOLED, stride=_STRIDE),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, left, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes),
        )

    def forward(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits of the model and, beside them, those of the head, (N, 2, classes)."""
        with _features(model, self.layer) as found:
            logits = model(images)
        return torch.stack([logits, self._layers(found[-1])], dim=1)


def auxiliary_head(
    model: nn.Module, sample_shape: tuple[int, int, int], classes: int, *, weight: float, seed: int, where: str
) -> AuxiliaryHead:
    """Make the auxiliary head of a model, the same for the same seed.

    Raises:
        GradshardError: the architecture has no auxiliary head, or the images are too small for it.
    """
    layer = _layer_of(model)
    if layer is None:
        known = ", ".join(sorted(name.rpartition(".")[2] for name in _LAYERS))
        raise GradshardError(
            f"training.auxiliary: {where} has no auxiliary classifier, as {known} of timm and torchvision have: set it "
            "to null"
        )
    device, training = next(model.parameters()).device, model.training
    with torch.no_grad(), _features(model.eval(), layer) as found:
        model(torch.zeros(1, *sample_shape, device=device))
    model.train(training)
    features = found[-1].shape[1:]
    if min(features[1:]) < _POOLED:
        raise GradshardError(
            f"training.auxiliary: {where} has {features[1]}x{features[2]} features where its auxiliary classifier "
            f"needs {_POOLED}x{_POOLED}: take a larger dataset.size, or set it to null"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AuxiliaryHead(layer, features, classes, weight=weight)


def _layer_of(model: nn.Module) -> str | None:
    for name, part in model.named_modules():
        kind = type(part)
        layer = _LAYERS.get(f"{kind.__module__}.{kind.__qualname__}")
        if layer is not None:
            return f"{name}.{layer}" if name else layer
    return None


@contextmanager
def _features(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Collect the outputs of a layer in a context."""
    found: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: found.append(output))
    try:
        yield found
    finally:
        handle.remove()
