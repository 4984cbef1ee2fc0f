"""Order in which the files of a folder become rows, drawn once and kept on disk.

Drawing it takes about 25 bytes of memory per file; reading it takes only the pages that are needed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

_NUMBER = np.dtype("<i8")


def row_order(files: int, *, seed: Sequence[int], left_out: Numbers) -> Numbers:
    """Draw each row's file: a pseudo-random permutation of all files but those left out, int64 (files - left out,).

    The row of a file that is left out goes to a file from the end of the order, and all other files keep their rows, so
    that a build that meets a broken image makes only the shards of that row and of the end again.

    Args:
        files: the number of files.
        seed: of the permutation.
        left_out: the numbers of the files that get no row.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(tuple(seed))))
    shuffled = generator.permutation(files)
    out = np.zeros(files, dtype=np.bool_)
    out[left_out] = True
    kept = files - int(out.sum())
    order, end = shuffled[:kept].copy(), shuffled[kept:]
    order[out[order]] = end[~out[end]]
    return order


def write_order(path: Path, order: Numbers) -> None:
    """Write an order to disk."""
    np.asarray(order, dtype=_NUMBER).tofile(path)


def read_order(path: Path) -> Numbers:
    """Open an order on disk, whose pages are read as they are needed."""
    # An empty file cannot be mapped.
    return np.memmap(path, dtype=_NUMBER, mode="r") if path.stat().st_size else np.empty(0, dtype=_NUMBER)
