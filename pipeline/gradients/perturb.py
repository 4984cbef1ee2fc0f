"""The step along signs, within [0, 1]; and random signs."""

import torch
from torch import Tensor

from gradshard.storage.errors import GradshardError

# Rounding may carry a pixel this far over epsilon; more is a fault of the attack.
_ROUNDING = 1e-5


def perturb(images: Tensor, signs: Tensor, epsilon: float | Tensor) -> Tensor:
    """Return clip(x + epsilon * sign, 0, 1). Epsilon is a number or, per example, a tensor (N, 1, 1, 1).

    Raises:
        GradshardError: the images are not floats, the signs have another shape, or epsilon has one that is not allowed
            or is a number outside of [0, 1].
    """
    if not images.is_floating_point():
        raise GradshardError(
            f"images of {images.dtype} cannot be perturbed, because epsilon is one of pixels in [0, 1]: divide by 255"
        )
    if signs.shape[-images.ndim :] != images.shape:  # several sources may come before
        raise GradshardError(
            f"signs of shape {tuple(signs.shape)} are none of images of shape {tuple(images.shape)}: unpack packed "
            "ones by unpack_signs, and give flat ones the images' shape by signs.view_as(images)"
        )
    if not isinstance(epsilon, Tensor):
        check_epsilon(epsilon)
    # Any other shape could broadcast over the columns of an image, and scale those.
    if isinstance(epsilon, Tensor) and epsilon.ndim and (epsilon.ndim, epsilon.shape[1:].numel()) != (images.ndim, 1):
        raise GradshardError(
            f"epsilon of shape {tuple(epsilon.shape)} is none of images of shape {tuple(images.shape)}: give a number, "
            "or one for each image by epsilon.view(-1, 1, 1, 1)"
        )
    if isinstance(epsilon, Tensor):
        epsilon = epsilon.to(images.dtype)
    return (images + epsilon * signs).clamp_(0, 1)


def check_epsilon(epsilon: float) -> None:
    """Refuse a number that is no distance of pixels in [0, 1].

    Raises:
        GradshardError: it is none.
    """
    if not 0 <= epsilon <= 1:
        raise GradshardError(f"epsilon is {epsilon:g}, no distance of pixels in [0, 1]: write 8 of 255 as 8 / 255")


def project(candidate: Tensor, images: Tensor, epsilon: float | Tensor) -> Tensor:
    """Bring examples back to within epsilon of their images and into [0, 1]; epsilon as for ``perturb``."""
    return torch.clamp(candidate, images - epsilon, images + epsilon).clamp_(0, 1)


def nearest_signs(images: Tensor, perturbed: Tensor, epsilon: float | Tensor) -> Tensor:
    """Return the signs with which ``perturb`` comes nearest to perturbed images, exactly if those are signed steps.

    A pixel that moves at least half as far as epsilon and [0, 1] allow counts as a full step, otherwise as none.

    Args:
        images: (N, C, H, W) in [0, 1].
        perturbed: of the same shape, within epsilon of the images and in [0, 1].
        epsilon: as for ``perturb``.

    Returns:
        -1, 0 and +1, (N, C, H, W), of the images' dtype.
    """
    step = perturbed - images
    reach = torch.where(step > 0, 1 - images, images).clamp_max(epsilon)
    return torch.where(2 * step.abs() >= reach, step.sign(), 0)


def leaves_ball(examples: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Return which examples are further than epsilon from their image in some pixel, or leave [0, 1], bool (N,)."""
    rounding = max(_ROUNDING, 2 * torch.finfo(images.dtype).eps)
    outside = ((examples - images).abs() > epsilon + rounding) | (examples < 0) | (examples > 1)
    return outside.flatten(1).any(1)


def random_signs(shape: torch.Size, *, generator: torch.Generator) -> Tensor:
    """Draw signs, -1 or +1 with equal chance, as those of a standard normal; float32, on the generator's device."""
    bits = torch.randint(0, 2, shape, generator=generator, device=generator.device, dtype=torch.int8)
    return (2 * bits - 1).float()
