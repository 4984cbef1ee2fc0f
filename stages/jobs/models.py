"""Models loaded from their weights files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.gradients.model_checks import Gradients
from gradshard.pipeline.malloc import keep_freed_memory
from gradshard.pipeline.models.precision import Arithmetic
from gradshard.pipeline.types import Output
from gradshard.stages.jobs.model_checks import check_given
from gradshard.stages.project import paths
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.labelled_rows import Splits


@dataclass(frozen=True)
class LoadedModel:
    """A frozen model in eval mode, what identifies it, and what its gradient was like at a few images."""

    module: nn.Module
    architecture: str
    digest: str
    weights_sha256: str
    gradients: Gradients = field(default_factory=Gradients)


@dataclass(frozen=True)
class ModelFile:
    """Reference to a model by its weights file, which workers get instead of the model.

    ``digest`` is that of the loaded model; ``stores`` pairs the sources that it was trained on with the content digests
    of their stores.
    """

    name: str
    path: Path
    architecture: str
    digest: str
    stores: tuple[tuple[str, str], ...] = ()


def model_file(params: Params, name: str, seed: int) -> ModelFile:
    """Find the weights that a model has in the run of a seed, their digest, and the stores they were trained on.

    Raises:
        GradshardError: the weights are missing or damaged.
    """
    path, architecture = weights_of(params, name, seed)
    tensors, record = checkpoints.load(path)
    recipe = record.get("recipe")
    stores = recipe.get("stores", {}) if isinstance(recipe, dict) else {}
    digest = checkpoints.tensors_digest(tensors, architecture)
    return ModelFile(name, path.resolve(), architecture, digest, tuple(stores.items()))


def load_model(
    path: Path,
    architecture: str,
    dataset: Splits,
    device: torch.device,
    *,
    arithmetic: Arithmetic = "fp32",
    checked: bool = False,
) -> LoadedModel:
    """Load a model from a weights file and check it on a few images.

    Args:
        path: of the file.
        architecture: the architecture that the file must hold.
        dataset: the dataset whose images and classes the model is for.
        device: where the model will compute.
        arithmetic: what its gradients will be computed in.
        checked: whether the same weights were checked before, so that the check is left out.

    Raises:
        GradshardError: the file is missing, damaged, or holds another architecture or one for other images; or the
            model cannot be attacked.
    """
    keep_freed_memory()
    tensors, record = checkpoints.load(path)
    check_architecture(record, architecture, path)
    output: Output = "probabilities" if record.get("output") == "probabilities" else "logits"
    module = models.load_frozen(
        architecture, dataset.sample_shape, dataset.classes, tensors, where=str(path), output=output
    ).to(device)
    return LoadedModel(
        module=module,
        architecture=architecture,
        digest=checkpoints.tensors_digest(tensors, architecture),
        weights_sha256=file_sha256(path),
        gradients=Gradients()
        if checked
        else check_given(module, dataset, device, where=str(path), arithmetic=arithmetic),
    )


def check_architecture(record: Mapping[str, object], architecture: str, path: Path) -> None:
    """Check that a weights file holds a model of the architecture that the parameters name.

    Raises:
        GradshardError: it holds a model of another architecture.
    """
    if record.get("architecture") != architecture:
        raise GradshardError(
            f"{path} holds a model of architecture {record.get('architecture')}, but the parameters say "
            f"{architecture}: train that model again"
        )


def check_defined(loaded: Mapping[str, LoadedModel], *, key: str) -> None:
    """Check that the models that ``key`` names have gradients that can be measured or attacked with.

    Raises:
        GradshardError: a gradient was NaN or infinite at some image.
    """
    for name, model in loaded.items():
        found = model.gradients
        if found.undefined:
            raise GradshardError(
                f"the input gradient of {name} is NaN or infinite for {found.undefined} of {found.rows} images, so "
                f"nothing can be measured by it: mend the model, or leave it out of {key}"
            )


def weights_of(params: Params, name: str, seed: int) -> tuple[Path, str]:
    """Return the weights file and the architecture of a model, or of a snapshot NAME@EPOCH, in the run of a seed.

    Raises:
        GradshardError: the file is missing; the message says which stage makes it.
    """
    model = name.partition("@")[0]
    trained = params.robust[model] if model in params.robust else params.static[params.in_run(model, seed)]
    return paths.existing_weights(params, name, seed), trained.architecture


def static_weights_of(params: Params, name: str) -> tuple[Path, str]:
    """Return the weights file and the architecture of a static model.

    Raises:
        GradshardError: the file is missing; the message says which stage makes it.
    """
    return paths.existing_static_weights(name), params.static[name].architecture
