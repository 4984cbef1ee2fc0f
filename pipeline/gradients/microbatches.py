"""Rows cut into batches that every pass over many images takes."""

import math
from collections.abc import Iterator

from torch import Tensor

# It bounds memory, keeps activations near the caches, and does not change the result.
_PIXELS = 128 * 28 * 28


def batch_rows(pixels: int) -> int:
    """Return how many rows of so many pixels each are computed at once."""
    return max(1, _PIXELS // pixels)


def microbatches(images: Tensor) -> Iterator[slice]:
    """Cut the rows of images (n, C, H, W) into slices that are computed at once; without rows there is none."""
    size = batch_rows(math.prod(images.shape[1:]))
    return (slice(start, min(start + size, len(images))) for start in range(0, len(images), size))
