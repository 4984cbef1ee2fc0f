"""Gradients by finite differences of a target's confidences, and RAND+FGSM with their signs (section 6)."""

import torch
from torch import Tensor

from gradshard.pipeline.blackbox.oracle import Oracle
from gradshard.pipeline.gradients.perturb import perturb


def confidence_margin(confidences: Tensor, labels: Tensor) -> Tensor:
    """Return the margin u = log(1 - p_t) - log p_t from confidences, float64 (n,).

    1 - p_t is summed from the other classes, which keeps its digits when p_t is near 1. A confidence of 0, on either
    side, counts as the smallest normal float32: below it the oracle shows no change, and differences are 0.
    """
    column = labels.unsqueeze(1)
    tiny = torch.finfo(torch.float32).tiny
    others = confidences.double().scatter(1, column, 0.0).sum(1).clamp_min(tiny)
    return others.log() - confidences.double().gather(1, column).squeeze(1).clamp_min(tiny).log()


def pixel_groups(pixels: int, groups: int, *, generator: torch.Generator) -> Tensor:
    """Assign each pixel at random to one of ``groups`` groups of sizes as equal as possible, int64 (pixels,)."""
    return (
        torch.arange(pixels).mul(groups).div(pixels, rounding_mode="floor")[torch.randperm(pixels, generator=generator)]
    )


def estimate_signs(oracle: Oracle, images: Tensor, labels: Tensor, groups: Tensor, *, delta: float) -> Tensor:
    """Return the signs of the margin's gradient by two-sided differences, one sign per group of pixels.

    With as many groups as pixels, this takes the 2d queries per example of section 6; with g groups it takes 2g, and
    every pixel gets the sign of its group's mean derivative.

    Args:
        oracle: the target, which is queried for confidences.
        images: (n, C, H, W) in [0, 1]; moved images may leave that range by ``delta``.
        labels: int64 (n,).
        groups: which group each pixel belongs to, int64 (C * H * W,).
        delta: the step, in pixel units.

    Returns:
        -1, 0 or 1, float32 (n, C, H, W).
    """
    count = int(groups.max()) + 1
    masks = torch.nn.functional.one_hot(groups, count).T.to(images).view(count, *images.shape[1:])
    signs = []
    for image, label in zip(images, labels, strict=True):
        up, down = (oracle.confidences(image + side * delta * masks) for side in (1, -1))
        of = label.expand(count)
        difference = (confidence_margin(up, of) - confidence_margin(down, of)).sign().to(images.dtype)
        signs.append(difference[groups.to(difference.device)].view(image.shape))
    return torch.stack(signs)


def estimated_rand_fgsm(
    oracle: Oracle,
    images: Tensor,
    labels: Tensor,
    groups: Tensor,
    *,
    epsilon: float,
    alpha: float,
    delta: float,
    noise: Tensor,
) -> Tensor:
    """Craft by RAND+FGSM (section 4) with the gradient estimated at the moved image; images (n, C, H, W)."""
    moved = perturb(images, noise, alpha)
    return perturb(moved, estimate_signs(oracle, moved, labels, groups, delta=delta), epsilon - alpha)
