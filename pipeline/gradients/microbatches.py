"""Microbatches: rows that pass through models at once, as many as memory has room for.

The memory of a pass is measured for one image and for two. The number of rows is a power of two, so that machines of
about the same memory cut rows alike: the last bit of a gradient may depend on the microbatch.
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

# More images at once gain nothing: they exceed a CPU's caches, and a GPU is already busy.
_MOST_ON_CPU, _MOST = 128, 1024

_log = logging.getLogger(__name__)


@dataclass
class _Measured:
    """Bytes of a pass of one image and of two; and the most images at once, fewer once the device ran out of memory."""

    one: int
    two: int
    most: int

    @property
    def image(self) -> int:
        """Bytes of every further image."""
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

    The first call measures two passes of black images; later calls use the result.

    Args:
        model: in eval mode.
        sample_shape: (C, H, W) of an image.
        device: where the model and its images are.
    """
    found, room = _measure(model, sample_shape, device), pass_memory(device)
    rows = max(1, min(1 + (room - found.one) // found.image, found.most))
    return Fit(1 << (rows.bit_length() - 1), found.image, room)


def rows_at_once(sample_shape: Shape, device: torch.device, *models: nn.Module) -> int:
    """Return how many images pass at once through whichever model takes the most memory."""
    return min(fit(model, sample_shape, device).rows for model in models)


def microbatches(images: Tensor, *models: nn.Module) -> Iterator[slice]:
    """Yield slices of the rows of images (n, C, H, W) that pass through models at once; none if there are no rows."""
    if not len(images):
        return iter(())
    return cut(slice(0, len(images)), rows_at_once(images.shape[1:], images.device, *models))


def cut(rows: slice, size: int) -> Iterator[slice]:
    """Cut rows into slices of a size, of which the last may be smaller."""
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def in_microbatches(compute: Callable[[slice], Result], images: Tensor, *models: nn.Module) -> list[Result]:
    """Call ``compute``, which passes images through ``models``, on every microbatch, and return its results in order.

    Images are (n, C, H, W). When a GPU runs out of memory, later microbatches are half as large.

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
        # After the except block, where nothing holds the tensors of the failed pass any more.
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
    # A ``Watched`` would count the measured rows too.
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
