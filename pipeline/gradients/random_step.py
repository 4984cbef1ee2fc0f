"""The random step that precedes stored signs: RAND+FGSM (section 4) from a store."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.row_noise import packed_row_signs
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.bitplanes import Planes
from gradshard.storage.formats.sign_reader import SignStore


@dataclass(frozen=True)
class DrawnStep:
    """A random step that was drawn for some images: ``alpha`` times ``noise``, float32 in their shape.

    The noise is -1 or +1, moves with the images, and is 0 where they are padded.
    """

    noise: Tensor
    alpha: float

    def left(self, epsilon: float | Tensor) -> float | Tensor:
        """Return what is left of epsilon, a number or (N, 1, 1, 1), for the step along the stored signs.

        Raises:
            GradshardError: nothing is left.
        """
        least = float(epsilon.min()) if isinstance(epsilon, Tensor) else epsilon
        check_left(least, self.alpha, "the store's attack")
        return epsilon - self.alpha

    def of(self, chosen: Tensor | slice) -> "DrawnStep":
        """Return the step for some of the images."""
        return replace(self, noise=self.noise[chosen])


@dataclass(frozen=True)
class RandomStep:
    """Random signs times ``alpha``, drawn for each row of one copy of a store."""

    alpha: float
    seed: int
    copy: int

    def planes(self, pixels: int, rows: Iterable[int]) -> Planes:
        """Draw the step's signs for rows of ``pixels`` pixels, packed, uint8 (n, 2, ceil(pixels / 8))."""
        return packed_row_signs(pixels, rows, seed=self.seed, copy=self.copy)

    def noise(self, shape: torch.Size, rows: Iterable[int], device: torch.device) -> Tensor:
        """Draw the step's signs, -1 or +1, float32 in the shape (n, C, H, W) of the rows' images."""
        return unpack_signs(torch.from_numpy(self.planes(shape[1:].numel(), rows)).to(device), shape)

    def draw(self, shape: torch.Size, rows: Iterable[int], device: torch.device) -> DrawnStep:
        """Draw the step for rows whose images have the shape (n, C, H, W)."""
        return DrawnStep(self.noise(shape, rows, device), self.alpha)


def check_left(epsilon: float, alpha: float, whose: str) -> None:
    """Check that a random step of alpha leaves something of epsilon.

    Raises:
        GradshardError: nothing is left.
    """
    if epsilon <= alpha:
        raise GradshardError(
            f"epsilon is {epsilon:g}, but {whose} steps {alpha:g} at random before it follows the signs: give a larger "
            "epsilon"
        )


def random_step(store: SignStore) -> RandomStep | None:
    """Return the random step that precedes a store's signs; None if they begin at the image itself."""
    attack = store.manifest.direction.attack
    if attack is None or attack.alpha is None:
        return None
    return RandomStep(attack.alpha, attack.seed, store.copy)


def random_steps(stores: Mapping[str, SignStore]) -> dict[str, tuple[RandomStep, ...]]:
    """Return, for each store whose signs begin after one, the random steps of its copies, in training's order."""
    steps = {name: tuple(map(random_step, store.in_turn)) for name, store in stores.items()}
    return {name: tuple(step for step in each if step) for name, each in steps.items() if all(each)}


def step_along(
    images: Tensor, signs: Tensor, epsilon: float, *, step: RandomStep | None = None, rows: Iterable[int] = ()
) -> Tensor:
    """Return the adversarial examples of stored signs, each within ``epsilon`` of its image, float (N, C, H, W).

    Args:
        images: float (N, C, H, W) in [0, 1].
        signs: which way to step, -1, 0 or +1, of the same shape.
        epsilon: the distance of all steps together, in units of pixels.
        step: the random step that precedes the signs, as ``random_step`` returns it for their store.
        rows: the images' row numbers, from which a random step is drawn.

    Raises:
        GradshardError: epsilon is no larger than the random step.
    """
    return step_after(images, signs, epsilon, None if step is None else step.draw(images.shape, rows, images.device))


def step_after(images: Tensor, signs: Tensor, epsilon: float | Tensor, drawn: DrawnStep | None) -> Tensor:
    """Return what ``step_along`` returns, for a random step that is already drawn; None if the signs need none.

    Raises:
        GradshardError: epsilon is no larger than the random step.
    """
    if drawn is None:
        return perturb(images, signs, epsilon)
    return perturb(perturb(images, drawn.noise, drawn.alpha), signs, drawn.left(epsilon))
