"""Signs of rows, computed from a model: what ``precompute`` stores, and ``store repair`` makes again."""

import math

import numpy as np
import torch

from gradshard.pipeline.gradients.microbatches import batch_rows, microbatches
from gradshard.pipeline.gradients.signs import GradientSpec, compute_signs
from gradshard.stages.support.models import LoadedModel
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Labels, Planes, packed_bytes
from gradshard.storage.formats.chunking import split_slice
from gradshard.storage.formats.dataset import Split

# What is read at once: enough that opening a file weighs nothing, too little to weigh in memory.
_PIECE_BYTES = 1 << 20


def compute_rows(
    model: LoadedModel, split: Split, rows: slice, direction: GradientSpec, device: torch.device
) -> tuple[Planes, Labels]:
    """The packed signs, uint8 (n, 2, ceil(P / 8)), of some rows, and the labels they were taken for, (n,).

    Besides what it returns, it never holds more than about 1 MiB or a batch of images, in whole chunks.

    Raises:
        GradshardError: a gradient is NaN or infinite, and has no sign; the sentence names the rows.
    """
    count = rows.stop - rows.start
    planes = np.empty((count, 2, packed_bytes(math.prod(split.sample_shape))), dtype=np.uint8)
    chosen = np.empty(count, dtype=np.int64)
    for some in split_slice(rows, _step(split)):
        images = torch.from_numpy(split.read_images(some.start, some.stop)).to(device)
        labels = torch.from_numpy(split.read_labels(some.start, some.stop)).to(device)
        # Packed batch by batch, out of the cache: unpacked signs take four times the room.
        for batch in microbatches(images):
            start = some.start - rows.start + batch.start
            try:
                signs, used = compute_signs(model.module, images[batch], labels[batch], direction)
            except GradshardError as error:
                first = rows.start + start
                raise GradshardError(f"rows {first} to {first + len(images[batch]) - 1}: {error}") from error
            place = slice(start, start + len(signs))
            planes[place], chosen[place] = bitplanes.pack(signs.numpy()), used.numpy()
    return planes, chosen


def _step(split: Split) -> int:
    """Return how many rows are read at once: whole chunks, each of which is read as a whole."""
    pixels = math.prod(split.sample_shape)
    return split.chunk * math.ceil(max(_PIECE_BYTES // pixels, batch_rows(pixels)) / split.chunk)
