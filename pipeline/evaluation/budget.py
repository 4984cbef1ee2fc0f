"""The budget of an attack, kept to the last bit: for examples that are handed to others."""

import torch
from torch import Tensor

from gradshard.pipeline.gradients.perturb import leaves_ball
from gradshard.storage.errors import GradshardError


def hold_budget(examples: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Move pixels that rounding carried out of the budget back into it, by a last bit.

    In float32, x + epsilon may be further from x than epsilon. Afterwards no example is found outside the budget, in
    whatever precision the difference is computed.

    Args:
        examples: float32 (N, C, H, W).
        images: the images that they were made from, in [0, 1], of the same dtype and shape.
        epsilon: how far a pixel may be moved.

    Returns:
        Examples in [0, 1], float32 (N, C, H, W), in which no pixel is further from its image's than the largest float32
        that is not above epsilon.

    Raises:
        GradshardError: some were further out than rounding explains.
    """
    outside = leaves_ball(examples, images, epsilon)
    if outside.any():
        raise GradshardError(
            f"{int(outside.sum())} of {len(images)} examples are further than {epsilon:g} from their images or leave "
            "[0, 1], so they are outside of the budget: mend the attack that made them"
        )
    exact, bound = images.double(), float(_not_above(torch.tensor(epsilon, dtype=torch.float64)))
    low = _not_below((exact - bound).clamp_min(0))
    high = _not_above((exact + bound).clamp_max(1))
    return examples.clamp(low, high)


def furthest(examples: Tensor, images: Tensor) -> float:
    """Return the largest change of a pixel, subtracted in float64."""
    return float((examples.double() - images.double()).abs().max())


def _not_above(values: Tensor) -> Tensor:
    """Round float64 down to float32."""
    rounded = values.float()
    return torch.where(rounded.double() > values, rounded.nextafter(torch.full_like(rounded, -torch.inf)), rounded)


def _not_below(values: Tensor) -> Tensor:
    """Round float64 up to float32."""
    return -_not_above(-values)
