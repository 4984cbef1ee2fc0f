"""The models by name: the paper's A to D, small ones, ``timm:NAME``, and ``package.module:factory`` for your own.

What normalises its input does it inside: a model maps images in [0, 1], float32 (N, C, H, W), to logits (N, classes).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from gradshard.pipeline.models import custom, small, tramer
from gradshard.pipeline.models.cpu_layers import use_cpu_layers
from gradshard.pipeline.models.first_pass import check_logits
from gradshard.pipeline.models.normalize import Normalised
from gradshard.pipeline.models.probabilities import LogProbabilities
from gradshard.pipeline.models.tensors import check_plain, is_lazy
from gradshard.pipeline.types import Output
from gradshard.storage.errors import GradshardError

Shape = tuple[int, int, int]

_TIMM = "timm:"
_COUNTER = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var")
_FORMS = f"{', '.join([*tramer.ARCHITECTURES, *small.ARCHITECTURES])}, timm:NAME and package.module:factory"


def create_model(
    architecture: str, sample_shape: Shape, classes: int, *, seed: int, output: Output = "logits"
) -> nn.Module:
    """A freshly initialised model in training mode, the same for the same seed.

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
    elif architecture.startswith(_TIMM):
        # Imported here: it takes seconds, and only those who name it need it installed.
        from gradshard.pipeline.models import timm_models

        name = architecture.removeprefix(_TIMM)
        model = _made(
            lambda: timm_models.build(name, sample_shape, classes),
            architecture,
            sample_shape,
            classes,
            seed,
            advice=timm_models.advice(name),
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
    """A model with the weights that its name has in timm, fetched unless they are in its cache.

    A classifier for another number of classes than ``pretrained_classes`` is a fresh one, by the seed.

    Raises:
        GradshardError: it has none, they cannot be fetched, or it does not take these images.
    """
    name = _timm_name(architecture)
    from gradshard.pipeline.models import timm_models

    return _made(
        lambda: timm_models.build(name, sample_shape, classes, pretrained=True),
        architecture,
        sample_shape,
        classes,
        seed,
        advice=timm_models.advice(name),
    ).train()


def pretrained_classes(architecture: str) -> int:
    """Count the classes that the pretrained weights of an architecture tell apart.

    Raises:
        GradshardError: it has none.
    """
    name = _timm_name(architecture)
    from gradshard.pipeline.models import timm_models

    return timm_models.pretrained_classes(name)


def load_frozen(
    architecture: str,
    sample_shape: Shape,
    classes: int,
    parameters: Mapping[str, Tensor],
    *,
    where: str,
    output: Output = "logits",
) -> nn.Module:
    """A frozen model in eval mode with the given parameters and buffers.

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
    """The sets of names that a checkpoint of a model must have: its own, or those of what it wraps."""
    names = [frozenset(_needed(model))]
    return [*names, *accepted_names(model.model)] if isinstance(model, Normalised | LogProbabilities) else names


def load_weights(model: nn.Module, parameters: Mapping[str, Tensor], *, where: str) -> list[str]:
    """Give a model the parameters and buffers of somebody's checkpoint, which comes from ``where``.

    Returns:
        The names of tensors that the model has no use for, such as those of a classifier for training alone.

    Raises:
        GradshardError: the checkpoint lacks a tensor of the model, or has one of another shape.
    """
    wanted = model.state_dict()
    lacking = [name for name in _needed(model) if name not in parameters]
    if isinstance(model, Normalised | LogProbabilities) and lacking:
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
    if architecture.startswith(_TIMM):
        from gradshard.pipeline.models import timm_models

        return {"timm": timm_models.version()}
    return {"factory": custom.source_digest(architecture)} if runs_user_code(architecture) else {}


def runs_user_code(architecture: str) -> bool:
    """Tell whether building it runs code that is neither gradshard's nor timm's."""
    return not architecture.startswith(_TIMM) and custom.is_factory(architecture)


def _timm_name(architecture: str) -> str:
    if not architecture.startswith(_TIMM):
        raise GradshardError(
            f"architecture {architecture} has no pretrained weights to fetch: only timm:NAME has; name a file instead"
        )
    return architecture.removeprefix(_TIMM)


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
