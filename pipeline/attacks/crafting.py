"""Crafting by the attacks of the table, with random draws that all of them share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradshard.pipeline import plugins
from gradshard.pipeline.attacks.registry import (
    ATTACKS,
    ELSEWHERE,
    Attack,
    AttackConfig,
    custom_attack,
    meant_attack,
)
from gradshard.pipeline.gradients.loss import attack_labels, step_sign
from gradshard.pipeline.gradients.perturb import random_signs
from gradshard.pipeline.types import Gradient, LabelPolicy
from gradshard.storage.errors import GradshardError


@dataclass(frozen=True)
class AttackNoise:
    """Random draws for the attacks, the same for every source.

    ``signs``, -1 or +1, (N, C, H, W), is the random step of RAND+FGSM. ``starts``, uniform in [-1, 1], (restarts, N, C,
    H, W), in units of epsilon, are the starts of PGD and C&W. ``seed`` is for AutoAttack and attacks from elsewhere.
    """

    signs: Tensor
    starts: Tensor
    seed: int

    def __getitem__(self, rows: slice) -> "AttackNoise":
        return AttackNoise(signs=self.signs[rows], starts=self.starts[:, rows], seed=self.seed)

    def to(self, device: torch.device) -> "AttackNoise":
        """Return the same draws on another device."""
        return AttackNoise(self.signs.to(device), self.starts.to(device), self.seed)

    def of_dtype(self, dtype: torch.dtype) -> "AttackNoise":
        """Return the draws in the dtype of the images, so that images moved by them keep it."""
        return AttackNoise(self.signs.to(dtype), self.starts.to(dtype), self.seed)


def sample_noise(shape: torch.Size, restarts: int, *, generator: torch.Generator) -> AttackNoise:
    """Draw the noise for images of a shape (N, C, H, W), on the generator's device."""
    signs = random_signs(shape, generator=generator)
    starts = torch.rand((restarts, *shape), generator=generator, device=generator.device).mul_(2).sub_(1)
    seed = torch.randint(2**31, (), generator=generator, device=generator.device)
    return AttackNoise(signs, starts, int(seed))


def attacks_named(
    names: Iterable[str], arguments: Mapping[str, Mapping[str, object]] | None = None
) -> Mapping[str, Attack]:
    """Return ``ATTACKS``, extended by the named attacks from elsewhere.

    Args:
        names: keys of ``ATTACKS``, or references that ``custom`` can call.
        arguments: keyword arguments of attacks from elsewhere, by the attack's name.

    Raises:
        GradshardError: a name is unknown, or arguments are given for anything but a named attack from elsewhere.
    """
    given = arguments or {}
    others = [name for name in names if name not in ATTACKS]
    unknown = [name for name in others if not plugins.is_reference(name)]
    if unknown:
        raise GradshardError(f"there is no attack {unknown[0]}{meant_attack(unknown[0])}")
    left = [name for name in given if name not in others]
    if left:
        raise GradshardError(
            f"arguments are given of {left[0]}, but they are for attacks from elsewhere ({ELSEWHERE}): name it among "
            "the attacks, or leave them out"
        )
    return {**ATTACKS, **{name: custom_attack("attack", name, given.get(name, {}), key="") for name in others}}


def check_attacks(names: Iterable[str], *, classes: int, attacks: Mapping[str, Attack] = ATTACKS) -> None:
    """Refuse attacks that cannot run here, before any long work begins.

    Raises:
        GradshardError: an attack's package is missing, or the attack needs more classes or takes other arguments.
    """
    for name in names:
        if check := attacks[name].check:
            plugins.find(check, what=name)(classes=classes, **attacks[name].given)


def craft_by_name(
    attack: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    strength: AttackConfig,
    draws: AttackNoise,
    gradient: Gradient = "exact",
    policy: LabelPolicy = "true",
    attacks: Mapping[str, Attack] = ATTACKS,
) -> Tensor:
    """Craft adversarial examples, (N, C, H, W), by the named attack of a table.

    A label policy other than ``true`` is applied once, at the unperturbed images; ``least_likely`` needs an attack
    that is ``targetable``.
    """
    if policy != "true":
        with torch.no_grad():
            labels = attack_labels(model(images), labels, policy)
    targeted = step_sign(policy) < 0
    return craft(
        attacks[attack],
        model,
        images,
        labels,
        strength=strength,
        draws=draws.of_dtype(images.dtype),
        gradient=gradient,
        targeted=targeted,
        what=attack,
    )


def craft(
    attack: Attack,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    strength: AttackConfig,
    draws: AttackNoise,
    gradient: Gradient,
    targeted: bool,
    what: str,
) -> Tensor:
    """Craft adversarial examples, (N, C, H, W), by an attack, away from the labels or, if ``targeted``, towards them.

    Error messages begin with ``what``.
    """
    known: dict[str, Any] = {
        "alpha": strength.alpha,
        "steps": strength.steps,
        "pgd_step": strength.pgd_step,
        "pgd_steps": strength.pgd_steps,
        "signs": draws.signs,
        "starts": draws.starts,
        "seed": draws.seed,
        "gradient": gradient,
    }
    taken = {keyword: known[name] for keyword, name in attack.takes.items()}
    options = {"targeted": True} if targeted else {}
    function = plugins.find(attack.function, what=what)
    examples: Tensor = function(model, images, labels, epsilon=strength.epsilon, **taken, **attack.given, **options)
    return examples
