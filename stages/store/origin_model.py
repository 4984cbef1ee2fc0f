"""The model that a store was made from, built by a trusted name and filled from any checkpoint."""

from dataclasses import replace
from pathlib import Path

import torch

from gradshard.pipeline import models
from gradshard.pipeline.config.training import StaticModel
from gradshard.pipeline.malloc import keep_freed_memory
from gradshard.stages.jobs.model_checks import check_given
from gradshard.stages.jobs.models import LoadedModel, load_model
from gradshard.stages.training.initial_weights import initial_static_model
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.labelled_rows import Splits
from gradshard.storage.formats.manifest import ModelRecord


def trusted_architecture(record: ModelRecord, architecture: str | None, *, where: str) -> str:
    """Return the architecture to build: the caller's, or else the manifest's if it runs no stranger's code.

    Raises:
        GradshardError: the caller named none, and the manifest's is somebody's code or cannot be built.
    """
    named = record.architecture
    if architecture is not None:
        return architecture
    # A stranger's manifest must not choose what is imported and called here.
    if models.runs_user_code(named):
        raise GradshardError(
            f"{where} says that its model is of architecture {named}: if you trust the code of that name, give "
            f"--architecture {named}"
        )
    if not models.is_known(named):
        raise GradshardError(
            f"{where} was made in Python from a model of class {named}: give --architecture package.module:factory of "
            "code that you trust, or audit it in Python by gradshard.audit"
        )
    return named


def open_model(
    record: ModelRecord, weights: Path, architecture: str, data: Splits, device: torch.device, *, where: str
) -> LoadedModel:
    """Build the model that a store says it was made from, and fill it from a checkpoint.

    Args:
        record: what the store says of its model.
        weights: a weights file of gradshard, or a state_dict in any form that ``gradshard examine`` takes.
        architecture: what to build, whose code may run.
        data: the dataset whose images and classes the model is for.
        device: where the model will compute.
        where: the store's place, for messages.

    Raises:
        GradshardError: the file is missing or does not fit, or its tensors are not those that the store names.
    """
    model = built_model(weights, architecture, data, device)
    # The digest covers the architecture's name, so it is taken with the store's name, whatever the name here.
    digest = model.digest if architecture == record.architecture else _digest(model, record)
    if digest != record.digest:
        raise GradshardError(
            f"{where} was made from model {record.digest[:12]}, but {weights} holds {digest[:12]}: give the weights "
            "that it was made from, and an architecture whose tensors have the same names"
        )
    return replace(model, architecture=record.architecture, digest=digest)


def built_model(weights: Path, architecture: str, data: Splits, device: torch.device) -> LoadedModel:
    """Build a model and fill it from a weights file of gradshard or any other checkpoint.

    Raises:
        GradshardError: the file is missing or does not fit, or the model cannot be attacked.
    """
    if _is_ours(weights):
        return load_model(weights, architecture, data, device)
    return _filled(weights, architecture, data, device)


def _is_ours(weights: Path) -> bool:
    if not weights.exists():
        return True  # load_model reports that it is missing
    try:
        checkpoints.load(weights)
    except GradshardError:
        return False
    return True


def _filled(weights: Path, architecture: str, data: Splits, device: torch.device) -> LoadedModel:
    keep_freed_memory()
    described = StaticModel(architecture=architecture, epochs=0, seed=0, weights=str(weights))
    initial = initial_static_model(described, data)
    module = initial.module.to(device).eval().requires_grad_(False)
    return LoadedModel(
        module=module,
        architecture=architecture,
        digest=checkpoints.tensors_digest(module.state_dict(), architecture),
        weights_sha256=file_sha256(weights),
        gradients=check_given(module, data, device, where=str(weights)),
    )


def _digest(model: LoadedModel, record: ModelRecord) -> str:
    return checkpoints.tensors_digest(model.module.state_dict(), record.architecture)
