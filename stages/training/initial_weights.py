"""A static model before training: with random weights, pretrained ones, or those of a checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.config.training import StaticModel
from gradshard.pipeline.models.tensors import check_tensors
from gradshard.pipeline.types import PRETRAINED, RANDOM
from gradshard.stages.console.progress import echo
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.foreign_checkpoints import read_checkpoint
from gradshard.storage.home import path_of

_TOLD = 3


class Classified(Protocol):
    """Shape and classes of the images that a model is for, such as a dataset's."""

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""

    @property
    def classes(self) -> int:
        """The number of classes."""


@dataclass(frozen=True)
class Initial:
    """A model before its first step, and the digest of its weights; none if the seed determines them."""

    module: nn.Module
    digest: str | None


def initial_static_model(static: StaticModel, data: Classified) -> Initial:
    """Build the static model that the parameters describe.

    Raises:
        GradshardError: the architecture, the weights or the checkpoint are missing or do not fit the dataset.
    """
    shape, classes = data.sample_shape, data.classes
    if static.weights == PRETRAINED:
        _check_classes(static, classes)
        module = models.pretrained(static.architecture, shape, classes, seed=static.seed)
    else:
        module = models.create_model(static.architecture, shape, classes, seed=static.seed, output=static.output)
    if static.weights == RANDOM:
        return Initial(module, None)
    if static.weights != PRETRAINED:
        _fill(module, path_of(static.weights), static.weights_key)
    return Initial(module, checkpoints.tensors_digest(module.state_dict(), static.architecture))


def _check_classes(static: StaticModel, classes: int) -> None:
    theirs = models.pretrained_classes(static.architecture)
    if theirs == classes:
        return
    if not static.epochs:
        raise GradshardError(
            f"the pretrained weights of {static.architecture} tell {theirs} classes apart, but the dataset has "
            f"{classes}: take a dataset with those classes (dataset.class_names names them where folders are missing), "
            "or let the model be trained (epochs above 0), which begins with a new classifier"
        )
    echo(f"{static.architecture}: its pretrained weights are for {theirs} classes; the classifier for {classes} is new")


def _fill(module: nn.Module, path: Path, key: str | None) -> None:
    checkpoint = read_checkpoint(path, wanted=models.accepted_names(module), key=key)
    if checkpoint.remark:
        echo(f"{path}: {checkpoint.remark}")
    unused = models.load_weights(module, checkpoint.tensors, where=str(path))
    if unused:
        more = ", ..." if len(unused) > _TOLD else ""
        echo(f"{path}: {len(unused)} tensors are left aside ({', '.join(unused[:_TOLD])}{more})")
    check_tensors(module, where=str(path))
