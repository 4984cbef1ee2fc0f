"""The models by name; a model maps images in [0, 1], (N, C, H, W), to logits (N, classes)."""

from gradshard.pipeline.models.auxiliary import AuxiliaryHead, auxiliary_head
from gradshard.pipeline.models.dropout import set_dropout
from gradshard.pipeline.models.registry import (
    Shape,
    accepted_names,
    create_model,
    is_known,
    load_frozen,
    load_weights,
    pretrained,
    pretrained_classes,
    provenance,
    runs_user_code,
)
from gradshard.pipeline.models.tramer import ARCHITECTURES

__all__ = [
    "ARCHITECTURES",
    "AuxiliaryHead",
    "Shape",
    "accepted_names",
    "auxiliary_head",
    "create_model",
    "is_known",
    "load_frozen",
    "load_weights",
    "pretrained",
    "pretrained_classes",
    "provenance",
    "runs_user_code",
    "set_dropout",
]
