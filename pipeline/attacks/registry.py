"""The attacks by name, as parameters and results call them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.autoattack import autoattack, check_autoattack
from gradshard.pipeline.attacks.fgsm import fgsm, iterative_fgsm, rand_fgsm
from gradshard.pipeline.attacks.pgd import mi_fgsm, pgd
from gradshard.pipeline.gradients.loss import attack_labels, step_sign
from gradshard.pipeline.gradients.perturb import random_signs
from gradshard.pipeline.types import AttackName, Gradient, LabelPolicy

# Of the radius, in all steps together (Madry et al. 2018, appendix): enough to cross the ball and turn back.
_PGD_REACH = 2.5
# Whose loss is their own, whatever the parameter ``gradient``.
OWN_LOSS: Collection[AttackName] = ("cw", "autoattack")
# They may step towards the least likely class instead of away from the true one.
OF_THE_PAPER: Collection[AttackName] = ("fgsm", "ifgsm", "rand_fgsm")


@dataclass(frozen=True)
class AttackConfig:
    """What an attack may do.

    ``epsilon`` in all, of it ``alpha`` at random (RAND+FGSM), in ``steps`` (I-FGSM, MI-FGSM); PGD and C&W in
    ``pgd_steps`` from each of ``restarts`` random starts.
    """

    epsilon: float
    alpha: float
    steps: int
    pgd_steps: int = 40
    restarts: int = 1


@dataclass(frozen=True)
class AttackNoise:
    """The random part of the attacks, the same for every source.

    ``signs``, -1 or +1, (N, C, H, W), is RAND+FGSM's step; ``starts``, uniform in [-1, 1], (restarts, N, C, H, W), are
    PGD's, in units of epsilon; ``seed`` is AutoAttack's.
    """

    signs: Tensor
    starts: Tensor
    seed: int

    def __getitem__(self, rows: slice) -> "AttackNoise":
        return AttackNoise(signs=self.signs[rows], starts=self.starts[:, rows], seed=self.seed)

    def to(self, device: torch.device) -> "AttackNoise":
        """Return the same on another device."""
        return AttackNoise(self.signs.to(device), self.starts.to(device), self.seed)


def sample_noise(shape: torch.Size, restarts: int, *, generator: torch.Generator) -> AttackNoise:
    """Draw for images of a shape (N, C, H, W), on the generator's device."""
    signs = random_signs(shape, generator=generator)
    starts = 2 * torch.rand((restarts, *shape), generator=generator, device=generator.device) - 1
    seed = torch.randint(2**31, (), generator=generator, device=generator.device)
    return AttackNoise(signs, starts, int(seed))


def check_attacks(attacks: Collection[AttackName], *, classes: int) -> None:
    """Refuse attacks that cannot be run here, before anything long is.

    Raises:
        GradshardError: an attack's package is missing, or it needs more classes.
    """
    if "autoattack" in attacks:
        check_autoattack(classes)


def run_attack(
    attack: AttackName,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    strength: AttackConfig,
    draws: AttackNoise,
    gradient: Gradient = "exact",
    policy: LabelPolicy = "true",
) -> Tensor:
    """Adversarial examples, (N, C, H, W), by the named attack.

    A label policy other than ``true`` is applied once, at the unperturbed images; ``least_likely`` needs an attack of
    the paper's.
    """
    if policy != "true":
        with torch.no_grad():
            labels = attack_labels(model(images), labels, policy)
    epsilon = strength.epsilon
    climb = partial(pgd, step=_PGD_REACH * epsilon / strength.pgd_steps, steps=strength.pgd_steps, noise=draws.starts)
    attacks: Mapping[AttackName, Callable[..., Tensor]] = {
        "fgsm": partial(fgsm, gradient=gradient),
        "ifgsm": partial(iterative_fgsm, steps=strength.steps, gradient=gradient),
        "rand_fgsm": partial(rand_fgsm, alpha=strength.alpha, noise=draws.signs, gradient=gradient),
        "mifgsm": partial(mi_fgsm, steps=strength.steps, loss=gradient),
        "pgd": partial(climb, loss=gradient),
        "cw": partial(climb, loss="hinge"),
        "autoattack": partial(autoattack, seed=draws.seed),
    }
    options = {"targeted": True} if step_sign(policy) < 0 else {}
    return attacks[attack](model, images, labels, epsilon=epsilon, **options)
