"""The models by name: the paper's A to D, small ones, those of libraries, and ``package.module:factory`` for your own.

What normalises its input does it inside: a model maps images in [0, 1], float32 (N, C, H, W), to logits (N, classes).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

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
    """A package of models by names; it is imported once one of them is asked for."""

    def build(self, name: str, sample_shape: Shape, classes: int, *, pretrained: bool = False) -> nn.Module:
        """Make a model with its normalisation inside."""

    def pretrained_classes(self, name: str) -> int:
        """Count the classes that its pretrained weights tell apart."""

    def advice(self, name: str) -> str:
        """Advise on images that it does not take."""

    def provenance(self, name: str) -> Mapping[str, str]:
        """Return what it follows from besides its name."""


# By what stands before the colon.
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
    architecture: str, sample_shape: Shape, classes: int, *, seed: int, output: Output = "logits"
) -> nn.Module:
    """Return a freshly initialised model in training mode, the same for the same seed.

    Args:
        architecture: its name.
        sample_shape: (C, H, W) of an image.
        classes: the number of logits.
        seed: of the initial parameters.
        output: what its own forward gives; the logarithms of probabilities are taken as logits.

    Raises:
        GradshardError: no such architecture, or not one for these images.
    """
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
        raise GradshardError(f"unknown architecture {architecture}: the known ones are {_FORMS}")
    return (LogProbabilities(model) if output == "probabilities" else model).train()


def pretrained(architecture: str, sample_shape: Shape, classes: int, *, seed: int) -> nn.Module:
    """Return a model with the weights that its name has in its library, fetched unless they are on this machine.

    A classifier for another number of classes than ``pretrained_classes`` is a fresh one, by the seed.

    Raises:
        GradshardError: it has none, they cannot be fetched, or it does not take these images.
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
        GradshardError: it has none.
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
        GradshardError: they, which come from ``where``, are not those of this architecture.
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
    """Return the sets of names that a checkpoint of a model must have: its own, or those of what it wraps."""
    names = [frozenset(_needed(model))]
    return [*names, *accepted_names(model.model)] if isinstance(model, _WRAPPERS) else names


def load_weights(model: nn.Module, parameters: Mapping[str, Tensor], *, where: str) -> list[str]:
    """Give a model the parameters and buffers of somebody's checkpoint, which comes from ``where``.

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
    """Return what an architecture follows from besides name and gradshard: a library's version, or a module's digest.

    Raises:
        GradshardError: the library or the module is not there.
    """
    if (found := _in_library(architecture)) is not None:
        library, name = found
        return dict(library.provenance(name))
    return {"factory": custom.source_digest(architecture)} if runs_user_code(architecture) else {}


def runs_user_code(architecture: str) -> bool:
    """Tell whether building it runs code that is neither gradshard's nor a known library's."""
    return _in_library(architecture) is None and custom.is_factory(architecture)


def is_known(architecture: str) -> bool:
    """Tell whether a name is one that ``create_model`` may build, whatever it finds behind it."""
    ours = architecture in tramer.ARCHITECTURES or architecture in small.ARCHITECTURES
    return ours or _in_library(architecture) is not None or custom.is_factory(architecture)


def _in_library(architecture: str) -> tuple[Library, str] | None:
    """Find the library of a model, and its name there; none if it is of none."""
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
    """Make a model, in the layout it will run in, tried on an image.

    Torch's default generator, on the CPU, has the seed until layers that are made in their first pass are there too;
    afterwards it is as before.
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
    # Torch before 0.4.1 did not count the batches of batch normalisation, and torch takes its checkpoints without.
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
