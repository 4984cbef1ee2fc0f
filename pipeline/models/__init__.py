"""The models by name; a model maps images in [0, 1], (N, C, H, W), to logits (N, classes)."""

from gradshard.pipeline.models.registry import (
    Shape,
    build,
    fill,
    needs_code,
    origin,
    pretrained,
    pretrained_classes,
    restore,
)
from gradshard.pipeline.models.tramer import ARCHITECTURES

__all__ = [
    "ARCHITECTURES",
    "Shape",
    "build",
    "fill",
    "needs_code",
    "origin",
    "pretrained",
    "pretrained_classes",
    "restore",
]
