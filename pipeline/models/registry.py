"""The models by name: the paper's A to D, small ones, those of libraries, and ``package.module:factory`` for your own.

Any normalisation is inside: a model maps images in [0, 1], float32 (N, C, H, W), to logits (N, classes).
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gradshard.pipeline.models import custom, small, timm_models, torchvision_models, tramer, transformers_models
from gradshard.pipeline.models.cpu_layers import use_cpu_layers
from gradshard.pipeline.models.first_pass import check_logits
from gradshard.pipeline.models.normalize import Normalised
from gradshard.pipeline.models.probabilities import LogProbabilities
from gradshard.pipeline.models.tensors import check_plain, is_lazy
from gradshard.pipeline.models.transformers_models import LogitsOf
from gradshard.pipeline.types import Output
from gradshard.storage.errors import GradshardError

Shape = tuple[int, int, int]


class Library(Protocol):
    """A package of models by name, imported when the first of them is asked for."""

    def build(self, name: str, sample_shape: Shape, classes: int, *, pretrained: bool = False) -> nn.Module:
        """Make a model with its normalisation inside."""

    def pretrained_classes(self, name: str) -> int:
        """Count the classes of a model's pretrained weights."""

    def advice(self, name: str) -> str:
        """Return advice for images that a model does not take."""

    def provenance(self, name: str) -> Mapping[str, str]:
        """Return what determines a model besides its name."""


# By the prefix before the colon.
_LIBRARIES: Mapping[str, Library] = {
    "timm": timm_models,
    "torchvision": torchvision_models,
    "hf": transformers_models,
}
_WRAPPERS = (Normalised, LogProbabilities, LogitsOf)
_COUNTER = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var")
_OF_LIBRARIES = "timm:NAME, torchvision:NAME and hf:FOLDER"
_FORMS = f"{', '.join([*tramer.ARCHITECTURES, *small.ARCHITECTURES])}, {_OF_LIBRARIES}, and package.module:factory"


def create_model(
    architecture: str, sample_shape: Shape, classes: int, *, seed: int = 0, output: Output = "logits"
) -> nn.Module:
    """Return a freshly initialised model in training mode, the same for the same seed.

    Args:
        architecture: its name.
        sample_shape: (C, H, W) of an image.
        classes: the number of logits.
        seed: of the initial parameters.
        output: what the model's own forward returns; the logarithms of probabilities are taken as logits.

    Raises:
        GradshardError: there is no such architecture, the shape is none of an image, or it does not take these images.
    """
    _check_shape(sample_shape)
    if architecture in tramer.ARCHITECTURES:
        model = use_cpu_layers(tramer.build(architecture, sample_shape, classes, seed=seed))
        model = model.to(memory_format=torch.channels_last)
    elif architecture in small.ARCHITECTURES:
        make = small.ARCHITECTURES[architecture]
        model = _made(
            lambda: make(sample_shape, classes), architecture, sample_shape, classes, seed, advice="choose another one"
        )
    elif (found := _in_library(architecture)) is not None:
        library, name = found
        model = _made(
            lambda: library.build(name, sample_shape, classes),
            architecture,
            sample_shape,
            classes,
            seed,
            advice=library.advice(name),
        )
    elif custom.is_factory(architecture):
        model = _made(
            lambda: custom.build(architecture, sample_shape, classes),
            architecture,
            sample_shape,
            classes,
            seed,
            advice="mend the factory",
        )
    else:
        close = difflib.get_close_matches(architecture, [*tramer.ARCHITECTURES, *small.ARCHITECTURES], n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise GradshardError(f"unknown architecture {architecture}{meant}: the known ones are {_FORMS}")
    return (LogProbabilities(model) if output == "probabilities" else model).train()


def pretrained(architecture: str, sample_shape: Shape, classes: int, *, seed: int) -> nn.Module:
    """Return a model with the weights of its name in its library, fetched unless they are on this machine.

    For a number of classes other than ``pretrained_classes``, the classifier is initialised by the seed.

    Raises:
        GradshardError: there are no such weights, they cannot be fetched, or the model does not take these images.
    """
    library, name = _library_of_weights(architecture)
    return _made(
        lambda: library.build(name, sample_shape, classes, pretrained=True),
        architecture,
        sample_shape,
        classes,
        seed,
        advice=library.advice(name),
    ).train()


def pretrained_classes(architecture: str) -> int:
    """Count the classes that the pretrained weights of an architecture tell apart.

    Raises:
        GradshardError: the architecture has no pretrained weights.
    """
    library, name = _library_of_weights(architecture)
    return library.pretrained_classes(name)


def load_frozen(
    architecture: str,
    sample_shape: Shape,
    classes: int,
    parameters: Mapping[str, Tensor],
    *,
    where: str,
    output: Output = "logits",
) -> nn.Module:
    """Return a frozen model in eval mode with the given parameters and buffers.

    Raises:
        GradshardError: the parameters, which come from ``where``, are not those of this architecture.
    """
    model = create_model(architecture, sample_shape, classes, seed=0, output=output)
    try:
        model.load_state_dict(dict(parameters))
    except RuntimeError as error:
        raise GradshardError(
            f"{where} does not hold the parameters of architecture {architecture} for images of shape {sample_shape} "
            f"and {classes} classes: train that model again"
        ) from error
    return model.eval().requires_grad_(False)


def accepted_names(model: nn.Module) -> list[frozenset[str]]:
    """Return sets of tensor names, of which a checkpoint must hold one: the model's own, or those of what it wraps."""
    names = [frozenset(_needed(model))]
    return [*names, *accepted_names(model.model)] if isinstance(model, _WRAPPERS) else names


def load_weights(model: nn.Module, parameters: Mapping[str, Tensor], *, where: str) -> list[str]:
    """Load the parameters and buffers of a checkpoint, which comes from ``where``, into a model.

    Returns:
        The names of tensors that the model has no use for, such as those of a classifier for training alone.

    Raises:
        GradshardError: the checkpoint lacks a tensor of the model, or has one of another shape.
    """
    wanted = model.state_dict()
    lacking = [name for name in _needed(model) if name not in parameters]
    if isinstance(model, _WRAPPERS) and lacking:
        return load_weights(model.model, parameters, where=where)
    if lacking:
        raise GradshardError(
            f"{where} lacks {len(lacking)} of the {len(wanted)} tensors of the architecture, such as {lacking[0]} (it "
            f"has {_some(parameters)}): {_remedy(model, lacking)}"
        )
    wanted = {name: tensor for name, tensor in wanted.items() if name in parameters}
    for name, tensor in wanted.items():
        if tensor.shape != parameters[name].shape:
            raise GradshardError(
                f"{where} holds {name} of shape {tuple(parameters[name].shape)}, but the architecture has "
                f"{tuple(tensor.shape)} for this dataset's images and classes: give a checkpoint for those"
            )
    model.load_state_dict({name: parameters[name] for name in wanted}, strict=False)
    return sorted(parameters.keys() - wanted.keys())


def provenance(architecture: str) -> dict[str, str]:
    """Return what determines an architecture besides name and gradshard: a library's version, or a module's digest.

    Raises:
        GradshardError: the library or the module is missing.
    """
    if (found := _in_library(architecture)) is not None:
        library, name = found
        return dict(library.provenance(name))
    return {"factory": custom.source_digest(architecture)} if runs_user_code(architecture) else {}


def runs_user_code(architecture: str) -> bool:
    """Tell whether building an architecture runs code that is neither gradshard's nor a known library's."""
    return _in_library(architecture) is None and custom.is_factory(architecture)


def is_known(architecture: str) -> bool:
    """Tell whether a name has a form that ``create_model`` takes, without looking for the model."""
    ours = architecture in tramer.ARCHITECTURES or architecture in small.ARCHITECTURES
    return ours or _in_library(architecture) is not None or custom.is_factory(architecture)


def _check_shape(shape: object) -> None:
    sizes = list(shape) if isinstance(shape, Sequence) else []
    if len(sizes) != 3 or not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise GradshardError(f"sample_shape is {shape}: give (C, H, W) of an image, such as (1, 28, 28)")


def _in_library(architecture: str) -> tuple[Library, str] | None:
    """Find the library of a model, and the model's name there; None if it is of no library."""
    prefix, colon, name = architecture.partition(":")
    return (_LIBRARIES[prefix], name) if colon and prefix in _LIBRARIES else None


def _library_of_weights(architecture: str) -> tuple[Library, str]:
    found = _in_library(architecture)
    if found is None:
        raise GradshardError(
            f"architecture {architecture} has no pretrained weights to fetch: only {_OF_LIBRARIES} have; name a file "
            "instead"
        )
    return found


def _made(
    make: Callable[[], nn.Module], architecture: str, shape: Shape, classes: int, seed: int, *, advice: str
) -> nn.Module:
    """Make a model in the memory layout that it runs in, and try it on an image.

    Torch's default generator on the CPU is seeded meanwhile, also while lazy layers are initialised, and restored
    afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        if is_lazy(model):
            check_logits(model, architecture, shape, classes, advice=advice)
        check_plain(model, where=f"architecture {architecture}")
        model = model.to(memory_format=torch.channels_last)
        check_logits(model, architecture, shape, classes, advice=advice)
    return model


def _needed(model: nn.Module) -> list[str]:
    # Checkpoints of torch before 0.4.1 lack the counters of batch normalisation, and torch loads them without.
    return [name for name in model.state_dict() if not name.endswith(_COUNTER)]


def _remedy(model: nn.Module, lacking: Sequence[str]) -> str:
    buffers = dict(model.named_buffers())
    if all(name in buffers and not name.endswith(_STATISTICS) for name in lacking):
        return (
            "where the factory gives them their values, as the mean and deviation of the images, let it register them "
            "with persistent=False"
        )
    return "give a checkpoint of that very architecture"


def _some(parameters: Mapping[str, Tensor]) -> str:
    names = sorted(parameters)
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "") if names else "none"
