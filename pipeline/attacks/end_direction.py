"""The end directions of attacks, (x_adv - x) / epsilon, and the signs that a store keeps of them.

Of an attack of one step, the signs of the gradient that it follows are stored, taken where the attack takes it. They
determine the attack for any epsilon, also where clipping at black or white hides how far a pixel would go. Of an attack
of many steps, the ternary signs of its end direction are stored.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.crafting import AttackNoise, craft
from gradshard.pipeline.attacks.registry import ATTACKS, Attack, AttackConfig, custom_attack
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.loss import attack_labels, step_sign
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.row_noise import row_classes, row_seed, row_signs, row_uniform
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.gradients.watching import Watched
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.types import Gradient, StoreLabel, StorePrecision
from gradshard.storage.errors import GradshardError

Rows = npt.NDArray[np.int64]

# Pixels that move by less than this share of their possible move get the sign 0; measured in docs/transfer-defence.md.
THRESHOLD = 0.5
_ONE_STEP = ("fgsm", "rand_fgsm")
# An attack that draws from the process's generators is seeded once per batch of this many rows, and sees only these.
SEEDED_ROWS = 16
# Steps can add up to exactly half of epsilon, and rounding must not decide on which side of the threshold they lie.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class AttackSpec:
    """Attack whose end directions a store holds: its name or reference, its strength, and the seed of its copies.

    ``where`` is the parameter or the store that names the attack, for messages.
    """

    attack: str
    gradient: Gradient
    policy: StoreLabel
    epsilon: float = 1.0
    alpha: float = 0.0
    steps: int = 1
    arguments: Mapping[str, object] = field(default_factory=dict)
    threshold: float = THRESHOLD
    seed: int = 0
    copies: int = 1
    precision: StorePrecision = "fp32"
    where: str = "signs"

    @cached_property
    def entry(self) -> Attack:
        """The attack's entry of the table; an attack from elsewhere gets an entry of the same kind."""
        if self.attack in ATTACKS:
            return ATTACKS[self.attack]
        return custom_attack(self.where, self.attack, self.arguments, key="")

    @property
    def one_step(self) -> bool:
        """True if the attack follows a single gradient."""
        return self.attack in _ONE_STEP

    @property
    def seeded(self) -> bool:
        """True if the attack draws from seeded global generators, so that it depends on the rows of its batch."""
        return "seed" in self.entry.takes.values()

    def batches(self, rows: Rows, *, at_once: int, total: int) -> Iterator[Rows]:
        """Yield batches of row numbers to craft at once, which cover the ascending ``rows`` out of ``total``.

        Batches of a seeded attack have a fixed size, on which its bytes depend, and may hold other rows too.
        """
        if self.seeded:
            for first in np.unique(rows // SEEDED_ROWS) * SEEDED_ROWS:
                yield np.arange(first, min(first + SEEDED_ROWS, total))
            return
        yield from (rows[start : start + at_once] for start in range(0, len(rows), at_once))


def end_directions(
    model: nn.Module, images: Tensor, labels: Tensor, spec: AttackSpec, *, rows: Rows, copy: int
) -> Tensor:
    """Craft one batch of ``AttackSpec.batches``, and return its directions.

    Args:
        model: a static model, in eval mode.
        images: uint8 (n, C, H, W), on the model's device.
        labels: the labels that the attack uses, int64 (n,), as ``store_labels`` returns them.
        spec: the attack.
        rows: the row numbers of the images.
        copy: the number of the attack's copy.

    Returns:
        Directions, float32 (n, C, H, W): for an attack of one step the gradient that it follows, negated towards a
        target; else each pixel's move as a share of its possible move, in [-1, 1].

    Raises:
        GradshardError: a gradient is NaN or infinite, or an attack from elsewhere fails.
    """
    pixels, watched = to_unit_range(images), Watched(model)
    with precision_context(spec.precision, images.device):
        if spec.one_step:
            found = _gradient(watched, pixels, labels, spec, rows=rows, copy=copy)
        else:
            examples = crafted(watched, pixels, labels, spec, rows=rows, copy=copy)
            found = _share(examples, pixels, spec.epsilon)
    if watched.undefined:
        raise GradshardError(
            f"{spec.where}: the model's input gradient is NaN or infinite on the way of {spec.attack} from rows "
            f"{rows[0]} to {rows[-1]}, so it has no sign: look for a norm, root or logarithm at 0 in the model's code"
        )
    return found


def to_signs(directions: Tensor, spec: AttackSpec) -> Tensor:
    """Return the signs that a store keeps of directions, int8 (n, C·H·W)."""
    signs = directions.sign().to(torch.int8)
    if not spec.one_step:
        signs *= directions.abs() >= spec.threshold - _ROUNDING
    return signs.flatten(1)


def crafted(model: nn.Module, pixels: Tensor, labels: Tensor, spec: AttackSpec, *, rows: Rows, copy: int) -> Tensor:
    """Craft the adversarial examples that a store's signs stand for, float32 (n, C, H, W).

    Arguments are those of ``end_directions``, but the images are ``pixels`` in [0, 1].
    """
    takes, drawn = spec.entry.takes.values(), {"seed": spec.seed, "copy": copy}
    noise = AttackNoise(
        signs=row_signs(pixels.shape, rows, **drawn).to(pixels.device) if "signs" in takes else pixels,
        starts=row_uniform(pixels.shape, rows, **drawn).to(pixels.device)[None] if "starts" in takes else pixels[None],
        seed=row_seed(int(rows[0]), **drawn) if spec.seeded else 0,
    )
    strength = AttackConfig(spec.epsilon, spec.alpha, spec.steps, pgd_steps=spec.steps)
    targeted = step_sign(spec.policy) < 0
    return craft(
        spec.entry,
        model,
        pixels,
        labels,
        strength=strength,
        draws=noise,
        gradient=spec.gradient,
        targeted=targeted,
        what=spec.where,
    )


def store_labels(model: nn.Module, images: Tensor, labels: Tensor, spec: AttackSpec, *, rows: Rows) -> Tensor:
    """Return the labels that a store's attack uses, int64 (n,); arguments are those of ``end_directions``.

    The policy is applied at the unperturbed images; ``labels`` are the true ones.
    """
    if spec.policy == "true":
        return labels
    with torch.no_grad(), precision_context(spec.precision, images.device):
        logits = model(to_unit_range(images))
    if spec.policy == "random":
        return row_classes(labels, rows, seed=spec.seed, classes=logits.shape[1])
    return attack_labels(logits, labels, spec.policy)


def _gradient(model: nn.Module, pixels: Tensor, labels: Tensor, spec: AttackSpec, *, rows: Rows, copy: int) -> Tensor:
    start = pixels
    if spec.alpha:
        noise = row_signs(pixels.shape, rows, seed=spec.seed, copy=copy).to(pixels.device)
        start = perturb(pixels, noise, spec.alpha)
    grad, _ = input_gradient(model, start, labels, gradient=spec.gradient)
    return step_sign(spec.policy) * grad


def _share(examples: Tensor, pixels: Tensor, epsilon: float) -> Tensor:
    """Return each pixel's move divided by its largest possible move, which is below epsilon near black and white."""
    moved = examples - pixels
    room = torch.where(moved > 0, 1 - pixels, pixels).clamp(max=epsilon)
    return torch.where(moved == 0, 0.0, moved / room)
