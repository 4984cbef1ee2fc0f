"""The model that a static model begins as: random, pretrained, or from a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pipeline import models
from pipeline.params import StaticModel
from pipeline.vocabulary import PRETRAINED, RANDOM
from stages.console import say
from storage import weights
from storage.datasets.dataset import Dataset

_TOLD = 3


@dataclass(frozen=True)
class Initial:
    """A model before its first step, and the digest of its weights where they do not follow from the seed."""

    module: nn.Module
    digest: str | None


def initial_model(static: StaticModel, data: Dataset) -> Initial:
    """Build the model that the parameters describe.

    Raises:
        GradshardError: the architecture, the weights or the checkpoint are not there or do not fit the dataset.
    """
    architecture, shape, classes = static.architecture, data.sample_shape, data.classes
    if static.weights == PRETRAINED:
        module = models.pretrained(architecture, shape, classes, seed=static.seed, new_classifier=static.epochs > 0)
    else:
        module = models.build(architecture, shape, classes, seed=static.seed)
    if static.weights == RANDOM:
        return Initial(module, None)
    if static.weights != PRETRAINED:
        _fill(module, Path(static.weights))
    return Initial(module, weights.tensors_digest(module.state_dict(), architecture))


def _fill(module: nn.Module, path: Path) -> None:
    unused = models.fill(module, weights.load_checkpoint(path), where=str(path))
    if unused:
        more = ", ..." if len(unused) > _TOLD else ""
        say(f"{path}: {len(unused)} tensors are left aside ({', '.join(unused[:_TOLD])}{more})")
