"""Attacks from elsewhere: how they are called, and how their examples are checked before any errors are counted.

``call`` is ``LIBRARY:NAME`` for a library of ``libraries``, else ``package.module:function``: a function that is called
as ``function(model, images, labels, epsilon=EPSILON, **arguments)`` and returns adversarial examples.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradshard.pipeline import plugins
from gradshard.pipeline.attacks.isolation import own_randomness
from gradshard.pipeline.attacks.libraries import LIBRARIES, Library
from gradshard.pipeline.gradients.perturb import leaves_ball
from gradshard.pipeline.models.tensors import copied
from gradshard.storage.errors import GradshardError


def check(*, name: str, call: str, arguments: Mapping[str, Any], classes: int) -> None:
    """Refuse an attack that cannot be called, before any long work begins.

    Raises:
        GradshardError: the attack cannot be imported, or takes other arguments.
    """
    del classes
    what = _named(name, call)
    library, kind = _library(call)
    if library:
        library.check(kind, arguments, what=what)
    else:
        plugins.check_call(plugins.find(call, what=what), {"epsilon": 0.0, **arguments}, what=what, positional=3)


def craft(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    seed: int,
    name: str,
    call: str,
    arguments: Mapping[str, Any],
) -> Tensor:
    """Run an attack from elsewhere, and return its examples in [0, 1], (N, C, H, W), within epsilon of the images.

    The attack gets copies of the model and the images, so that its changes to them affect nothing else. The global
    random generators are seeded for it: the same seed and batch give the same examples.

    Raises:
        GradshardError: the attack fails, or returns anything else.
    """
    what = _named(name, call)
    own = copied(model)
    with own_randomness(images.device, seed=seed), torch.enable_grad():
        try:
            found = _call(call, own, images.clone(), labels.clone(), epsilon, arguments, what=what)
        except GradshardError:
            raise
        # User code can raise any exception; SystemExit would end a cluster's thread and leave its task waiting forever.
        except (Exception, SystemExit) as error:
            raise GradshardError(f"{what} failed ({plugins.explain(error)})") from error
    return _checked(found, images, epsilon, what=what)


def provenance(*, name: str, call: str) -> str:
    """Return what determines an attack besides its arguments: its library's version, or the digest of its file.

    Raises:
        GradshardError: the attack cannot be imported.
    """
    library, _ = _library(call)
    return library.version if library else plugins.source_digest(call, what=_named(name, call))


def _library(call: str) -> tuple[Library | None, str]:
    """Return the library that a call names, if any, and the attack's name in it."""
    library, _, kind = call.partition(":")
    return LIBRARIES.get(library), kind


def _call(
    call: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    arguments: Mapping[str, Any],
    *,
    what: str,
) -> object:
    library, kind = _library(call)
    if library:
        return library.craft(library.find(kind, what=what), model, images, labels, epsilon, arguments)
    return plugins.find(call, what=what)(model, images, labels, epsilon=epsilon, **arguments)


def _checked(found: object, images: Tensor, epsilon: float, *, what: str) -> Tensor:
    """Return an attack's examples, clipped to [0, 1], after checking them."""
    if not isinstance(found, Tensor):
        raise GradshardError(f"{what} returned a {type(found).__name__} and not a tensor")
    if found.shape != images.shape or found.dtype != images.dtype:
        raise GradshardError(
            f"{what} returned {_kind(found)} for images that are {_kind(images)}: it must keep shape and dtype"
        )
    examples = found.detach().to(images.device)
    if not examples.isfinite().all():
        raise GradshardError(f"{what} returned pixels that are no finite numbers")
    examples = examples.clamp(0, 1)
    outside = leaves_ball(examples, images, epsilon)
    if outside.any():
        furthest = float((examples - images).abs().max())
        raise GradshardError(
            f"{what} moved {int(outside.sum())} of {len(images)} images by more than eps, which is {epsilon:g} "
            f"for every pixel (the furthest by {furthest:g}): give it arguments, or name an attack, that keep to that"
        )
    return examples


def _kind(images: Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"


def _named(name: str, call: str) -> str:
    return f"{name} ({call})"
