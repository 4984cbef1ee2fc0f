"""Rows cut into microbatches: what passes through models at once, as many images as memory has room for.

How much a pass takes is measured, for one image and for two. The number is a power of two, so that machines of about
the same memory cut rows alike: in another microbatch the last bit of a gradient may be another.
"""

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from gradshard.pipeline.gradients.device_memory import pass_memory
from gradshard.pipeline.gradients.pass_memory import pass_bytes
from gradshard.pipeline.gradients.watching import Watched
from gradshard.storage.errors import GradshardError

Result = TypeVar("Result")
Shape = tuple[int, ...]

# More at once gain nothing: a CPU's caches are left behind, and a GPU is busy.
_MOST_ON_CPU, _MOST = 128, 1024

_log = logging.getLogger(__name__)


@dataclass
class _Measured:
    """Bytes that passes of one and of two images took; and the most images since the device ran out of memory."""

    one: int
    two: int
    most: int

    @property
    def image(self) -> int:
        """Bytes that every further image takes."""
        return max(1, self.two - self.one)


_measured: "weakref.WeakKeyDictionary[nn.Module, dict[tuple[Shape, torch.device, torch.dtype], _Measured]]" = (
    weakref.WeakKeyDictionary()
)
_measuring = threading.Lock()


@dataclass(frozen=True)
class Fit:
    """Number of images that pass at once; each takes ``image`` bytes, and all of them may take ``room``."""

    rows: int
    image: int
    room: int


def fit(model: nn.Module, sample_shape: Shape, device: torch.device) -> Fit:
    """Find how many images of a shape (C, H, W) pass through a model at once, forwards and back to the images.

    It is measured once: two passes, of black images.

    Args:
        model: in eval mode.
        sample_shape: of an image.
        device: where the model and its images are.
    """
    found, room = _measure(model, sample_shape, device), pass_memory(device)
    rows = max(1, min(1 + (room - found.one) // found.image, found.most))
    return Fit(1 << (rows.bit_length() - 1), found.image, room)


def rows_at_once(sample_shape: Shape, device: torch.device, *models: nn.Module) -> int:
    """Return how many images pass at once through whichever of some models takes the most memory."""
    return min(fit(model, sample_shape, device).rows for model in models)


def microbatches(images: Tensor, *models: nn.Module) -> Iterator[slice]:
    """Cut the rows of images (n, C, H, W) into slices that pass at once through models; without rows there is none."""
    if not len(images):
        return iter(())
    return cut(slice(0, len(images)), rows_at_once(images.shape[1:], images.device, *models))


def cut(rows: slice, size: int) -> Iterator[slice]:
    """Cut rows into slices of a size, of which the last may be smaller."""
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def in_microbatches(compute: Callable[[slice], Result], images: Tensor, *models: nn.Module) -> list[Result]:
    """Call a function of every microbatch of images (n, C, H, W) that it passes through models, in their order.

    Where a GPU has no memory left, there are half as many images at once from then on.

    Raises:
        GradshardError: there is no memory for a single image.
    """
    results: list[Result] = []
    waiting = list(microbatches(images, *models))[::-1]
    while waiting:
        rows = waiting.pop()
        try:
            results.append(compute(rows))
            continue
        except torch.cuda.OutOfMemoryError:
            pass
        # Here, where nothing holds the tensors of the failed pass any more.
        _take_less(rows, images, models)
        waiting = list(cut(slice(rows.start, len(images)), max(1, (rows.stop - rows.start) // 2)))[::-1]
    return results


def _take_less(rows: slice, images: Tensor, models: tuple[nn.Module, ...]) -> None:
    count = rows.stop - rows.start
    if count == 1:
        raise GradshardError(
            f"{images.device} has no memory left for a single image of shape {tuple(images.shape[1:])}: end what else "
            "computes there, or set device: cpu"
        )
    gc.collect()
    if images.device.type == "cuda":
        torch.cuda.empty_cache()
    for model in models:
        found = _measure(model, images.shape[1:], images.device)
        found.most = min(found.most, count // 2)
    _log.warning("%s ran out of memory with %d images at once: going on with %d", images.device, count, count // 2)


def _measure(model: nn.Module, sample_shape: Shape, device: torch.device) -> _Measured:
    # It would count the rows as its own.
    model = model.model if isinstance(model, Watched) else model
    dtype = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    key = (tuple(sample_shape), device, dtype)
    with _measuring:
        of_model = _measured.setdefault(model, {})
        if key not in of_model:
            one, two = (
                pass_bytes(model, torch.zeros(count, *sample_shape, dtype=dtype, device=device)) for count in (1, 2)
            )
            of_model[key] = _Measured(one, two, _MOST_ON_CPU if device.type == "cpu" else _MOST)
        return of_model[key]
