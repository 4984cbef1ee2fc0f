"""Shuffling arrays that are sorted by class.

Streamed training sees a window of chunks of neighbouring rows at a time, so rows must not be sorted by class. Files of
arrays may be compressed, so they can be read quickly only in their own order: they are read once, and every row is
written to its place in a scratch file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from gradshard.storage.formats.chunking import CHUNK_BYTES, split_slice
from gradshard.storage.formats.dataset import Labels
from gradshard.storage.formats.dataset_writer import AnyImages
from gradshard.storage.formats.raw_images import RawImages
from gradshard.storage.ingest.row_order import Numbers, row_order

# Rows with fewer than this share of the runs expected by chance make windows of few classes ...
_FEW = 0.5
# ... and so many standard deviations below the mean, it is not chance.
_DEVIATIONS = 4.0


def label_runs(labels: Labels) -> int:
    """Count the runs of equal labels."""
    return int(len(labels) > 0) + int(np.count_nonzero(labels[1:] != labels[:-1]))


def expected_runs(labels: Labels) -> tuple[float, float]:
    """Compute the mean and standard deviation of the number of runs over all orders of these labels.

    They are those of Barton and David's test (1957) for several kinds.
    """
    counts = np.unique(labels, return_counts=True)[1].astype(np.float64)
    n, squares, cubes = float(len(labels)), float((counts**2).sum()), float((counts**3).sum())
    if n < 2:
        return n, 0.0
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    return (n * (n + 1) - squares) / n, max(variance, 0.0) ** 0.5


def is_sorted(labels: Labels) -> bool:
    """Tell whether rows are sorted by class: in far fewer runs of one label than expected by chance."""
    runs, (mean, deviation) = label_runs(labels), expected_runs(labels)
    return runs < _FEW * mean and runs < mean - _DEVIATIONS * deviation


def shuffled_order(rows: int, *, seed: int, split: int) -> Numbers:
    """Draw which row of the raw array goes to each row, int64 (rows,), by the rule of image folders."""
    return row_order(rows, seed=(seed, split), left_out=np.empty(0, dtype=np.int64))


def scatter(images: AnyImages, order: Numbers, scratch: Path) -> Iterator[int]:
    """Write images to a file in a new order, yielding the number of rows each time; ``scattered`` opens it.

    Args:
        images: uint8 (N, C, H, W), read once, in ascending order.
        order: a permutation; row i of the file is image ``order[i]``.
        scratch: the file.
    """
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    row_bytes = int(np.prod(images.shape[1:]))
    # Buffered: an unbuffered write may take only a part of an image, when the disk is full for a moment.
    with scratch.open("wb") as file:
        for rows in split_slice(slice(0, len(order)), max(1, CHUNK_BYTES // row_bytes)):
            for place, image in zip(places[rows].tolist(), np.ascontiguousarray(images[rows]), strict=True):
                file.seek(place * row_bytes)
                file.write(image.data)
            yield rows.stop - rows.start


def scattered(images: AnyImages, scratch: Path) -> RawImages:
    """Open the file that ``scatter`` wrote from images."""
    return RawImages(
        str(scratch), lambda: cast(BinaryIO, scratch.open("rb")), 0, tuple(images.shape), arrange=lambda pixels: pixels
    )
