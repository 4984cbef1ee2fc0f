"""Comparison of two stores over the same rows, sign by sign."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gradshard.storage.formats.sign_reader import SignStore


def compare(
    one: SignStore, other: SignStore, *, advance: Callable[[int], None]
) -> tuple[npt.NDArray[np.float64], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return the share of equal signs of every row, float64 (N,), and both stores' labels, int64 (N,).

    Raises:
        GradshardError: a shard is missing or damaged.
    """
    pixels, step = one.manifest.dataset.pixels, max(one.layout.shard, other.layout.shard)
    agreement = np.empty(len(one))
    for start in range(0, len(one), step):
        stop = min(start + step, len(one))
        # Two signs are equal if neither of their bits differs.
        different = one.read(start, stop) ^ other.read(start, stop)
        wrong = np.bitwise_count(different[:, 0] | different[:, 1]).sum(axis=1, dtype=np.int64)
        agreement[start:stop] = 1 - wrong / pixels
        advance(stop - start)
    return agreement, (one.load_labels(), other.load_labels())
