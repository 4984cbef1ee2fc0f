"""Checks of the arguments that the attacks, ``evaluate`` and ``examine`` share; each refuses in one sentence."""

import operator
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.gradients.model_checks import as_it_was
from gradshard.pipeline.gradients.perturb import check_epsilon
from gradshard.pipeline.gradients.watching import Watched
from gradshard.pipeline.models.first_pass import brief
from gradshard.pipeline.models.tensors import part_in_training
from gradshard.pipeline.types import EvaluationLabel, Gradient
from gradshard.storage.errors import GradshardError

_SEEDS = range(1 << 63)


def attack_config(
    *, epsilon: float, alpha: float | None = None, steps: int | None = None, restarts: int = 1
) -> AttackConfig:
    """Return the strength of attacks, with the defaults of ``Attack`` filled in.

    Raises:
        GradshardError: a number is out of its range; the message names it.
    """
    size = _distance("epsilon", epsilon)
    check_epsilon(size)
    part = size / 2 if alpha is None else _distance("alpha", alpha)
    if not 0 <= part <= size:
        raise GradshardError(
            f"alpha is {part:g}, but the random step is a part of epsilon, {size:g}: give a number from 0 to that"
        )
    count = None if steps is None else _positive("steps", steps)
    return AttackConfig(
        epsilon=size,
        alpha=part,
        steps=count or 10,
        pgd_steps=count or 40,
        restarts=_positive("restarts", restarts),
    )


def _distance(name: str, value: Any) -> float:
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GradshardError(
            f"{name} is {value!r:.60}: give one number for all images, in units of pixels in [0, 1], such as 8 / 255"
        ) from error


def _whole(name: str, value: Any, *, least: int) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise GradshardError(f"{name} is {value!r:.60}: give a whole number, {least} or more") from error


def _positive(name: str, value: Any) -> int:
    number = _whole(name, value, least=1)
    if number < 1:
        raise GradshardError(f"{name} is {number}, by which nothing is attacked: give 1 or more")
    return number


def seeded(seed: int) -> torch.Generator:
    """Return a generator of random draws on the CPU.

    Raises:
        GradshardError: there is no such seed.
    """
    number = _whole("seed", seed, least=0)
    if number not in _SEEDS:
        raise GradshardError(f"seed is {number}: give a whole number from 0 to 2**63 - 1")
    return torch.Generator().manual_seed(number)


def check_pixels(images: Tensor) -> None:
    """Refuse images that are not float pixels in [0, 1].

    Raises:
        GradshardError: they are something else; the message names the remedy.
    """
    if not isinstance(images, Tensor):
        raise GradshardError(
            f"images are a {type(images).__name__}, not a tensor: of an array of bytes "
            "torch.from_numpy(images).float() / 255 makes one"
        )
    if not images.is_floating_point():
        raise GradshardError(f"images are {images.dtype}, not float pixels in [0, 1]: divide them by 255")
    if images.ndim != 4:
        raise GradshardError(
            f"images have shape {tuple(images.shape)}, not (N, C, H, W): give grey ones a channel by images[:, None], "
            "and let the model flatten them"
        )
    if not images.numel():
        raise GradshardError(f"there is no pixel in images of shape {tuple(images.shape)}: give one image at least")
    if images.is_inference() or torch.is_inference_mode_enabled():
        raise GradshardError("attacks need gradients, which torch.inference_mode leaves out: use torch.no_grad instead")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise GradshardError(
            f"pixels run from {low:.4g} to {high:.4g} and not from 0 to 1: normalise inside the model, so that epsilon "
            "keeps its unit"
        )


def count_classes(model: nn.Module, images: Tensor, *, where: str = "the model") -> int:
    """Return how many classes a model tells apart, by a pass of the first image in eval mode, which changes nothing.

    Raises:
        GradshardError: the model does not take the images, or gives no logits for them.
    """
    _check_module(model, where)
    try:
        logits = _first_pass(model, images[:1].clone())
    # User code can raise any exception.
    except Exception as error:
        dtype, shape = str(images.dtype).removeprefix("torch."), tuple(images.shape)
        raise GradshardError(
            f"{where} does not take images that are {dtype} of shape {shape} ({brief(error)}): give it images of its "
            "own shape, type and device"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise GradshardError(
            f"{where} gives {found} for one image and not logits of shape (1, classes): let it return its logits alone"
        )
    return logits.shape[1]


def check_named(**given: object) -> None:
    """Refuse models, by the name of the argument that holds them, that have no names.

    Raises:
        GradshardError: an argument is no mapping.
    """
    for argument, models in given.items():
        if not isinstance(models, Mapping):
            raise GradshardError(
                f"{argument} is a {type(models).__name__}: give a mapping of names to modules, as {{'mine': model}}"
            )


def check_listed(**given: object) -> None:
    """Refuse attacks, by the name of the argument that holds them, that are one text, whose letters would be names.

    Raises:
        GradshardError: an argument is a text.
    """
    for argument, attacks in given.items():
        if isinstance(attacks, str):
            raise GradshardError(f"{argument} is {attacks!r}: give a list of names, such as [{attacks!r}]")


def check_eval_mode(models: Mapping[str, nn.Module]) -> None:
    """Refuse models, by name, that are not modules or are in training mode.

    Raises:
        GradshardError: a model is no module, or is in training mode.
    """
    for name, model in models.items():
        _check_module(model, name)
        part = part_in_training(model)
        if part is not None:
            raise GradshardError(
                f"{name}{f' (its part {part})' if part else ''} is in training mode: call its eval() first"
            )


def _check_module(model: object, where: str) -> None:
    if not isinstance(model, nn.Module):
        raise GradshardError(
            f"{where} is a {type(model).__name__}, not a torch.nn.Module: call it in a module's forward"
        )


def _first_pass(model: nn.Module, image: Tensor) -> object:
    with as_it_was(model, image.device), torch.no_grad():
        model.eval()  # batch normalisation in train mode takes no single image
        return model(image)


def check_gradients(attacked: Mapping[str, Watched]) -> None:
    """Refuse models, by name, whose gradient was undefined for some images, which attacks then did not move.

    Raises:
        GradshardError: a gradient that an attack asked for was NaN or infinite.
    """
    for name, model in attacked.items():
        if model.undefined:
            raise GradshardError(
                f"the input gradient of {name} is NaN or infinite for {model.undefined} of the {model.rows} images "
                "that attacks took it at, so they moved nothing there: mend the model (eps inside a root, clamp_min)"
            )


def check_labels(labels: Tensor, images: Tensor, *, classes: int | None = None) -> None:
    """Refuse labels that do not fit the images, or are no class: below 0, or not below ``classes`` if that is given.

    Raises:
        GradshardError: they do not fit, or one is no class; the message names the remedy.
    """
    found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise GradshardError(f"labels are {found}: give the number of each image's class, int64 ({len(images)},)")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        known = "" if classes is None else f" to {classes - 1}"
        raise GradshardError(f"labels run from {low} to {high}: give numbers of classes, from 0{known}")


def check_words(gradient: str, label: str = "true") -> None:
    """Refuse unknown words, which would otherwise act as other ones.

    Raises:
        GradshardError: a word is unknown; the message lists the known ones.
    """
    known = {"gradient": (gradient, get_args(Gradient)), "label": (label, get_args(EvaluationLabel))}
    for name, (word, words) in known.items():
        if word not in words:
            raise GradshardError(f"{name} is {word}: choose {' or '.join(words)}")
