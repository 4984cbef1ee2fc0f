"""The random step that stored signs begin from: RAND+FGSM (section 4) out of a store."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.row_noise import row_signs
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.sign_reader import SignStore


@dataclass(frozen=True)
class RandomStep:
    """Random signs times ``alpha``, drawn for each row of one copy of a store."""

    alpha: float
    seed: int
    copy: int

    def noise(self, shape: torch.Size, rows: Iterable[int], device: torch.device) -> Tensor:
        """Draw the step's signs, -1 or +1, float32 in the shape (n, C, H, W) of the rows' images."""
        return row_signs(shape, rows, seed=self.seed, copy=self.copy).to(device)

    def left(self, epsilon: float | Tensor) -> float | Tensor:
        """Return what is left of epsilon for the step along the stored signs.

        Raises:
            GradshardError: nothing is.
        """
        if not isinstance(epsilon, Tensor) and epsilon <= self.alpha:
            raise GradshardError(
                f"epsilon is {epsilon:g}, but the store's attack steps {self.alpha:g} at random before it follows the "
                "signs: give a larger epsilon"
            )
        return (epsilon - self.alpha).clamp_min(0) if isinstance(epsilon, Tensor) else epsilon - self.alpha


def random_step(store: SignStore) -> RandomStep | None:
    """Return the random step that a store's signs begin from, if they do not begin from the image itself."""
    attack = store.manifest.direction.attack
    if attack is None or attack.alpha is None:
        return None
    return RandomStep(attack.alpha, attack.seed, store.copy)


def check_no_random_step(store: SignStore) -> None:
    """Refuse a store whose signs do not begin at the images themselves, where they would be used as if they did.

    Raises:
        GradshardError: it is one.
    """
    if random_step(store) is not None:
        raise GradshardError(
            f"{store.where} holds signs that begin after a random step, which training does not make: use a store of "
            "another attack, or step_along of gradshard.pipeline.gradients.random_step in a loop of your own"
        )


def step_along(
    images: Tensor, signs: Tensor, epsilon: float, *, step: RandomStep | None = None, rows: Iterable[int] = ()
) -> Tensor:
    """Return the adversarial examples of stored signs, each within ``epsilon`` of its image, float (N, C, H, W).

    Args:
        images: float (N, C, H, W) in [0, 1].
        signs: which way to step, -1, 0 or +1, of the same shape.
        epsilon: how far in all, in units of pixels.
        step: the random step that the signs begin from, as ``random_step`` gives it for their store.
        rows: the images' row numbers, which a random step follows from.

    Raises:
        GradshardError: epsilon is no larger than the random step.
    """
    if step is None:
        return perturb(images, signs, epsilon)
    moved = perturb(images, step.noise(images.shape, rows, images.device), step.alpha)
    return perturb(moved, signs, step.left(epsilon))
