"""Comparison of two stores over the same rows, sign by sign."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gradshard.storage.formats.sign_reader import SignStore


def compare(
    one: SignStore, other: SignStore, *, advance: Callable[[int], None]
) -> tuple[npt.NDArray[np.float64], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return the share of equal signs of every row, float64 (N,), and both stores' labels, int64 (N,).

    Of stores of an attack the copies that both have are compared, each with that of its number.

    Raises:
        GradshardError: a shard is missing or damaged.
    """
    pixels, step = one.manifest.dataset.pixels, max(one.layout.shard, other.layout.shard)
    copies = list(zip(one.in_turn, other.in_turn, strict=False))
    agreement = np.empty(len(one))
    for start in range(0, len(one), step):
        stop = min(start + step, len(one))
        wrong = sum(_differing(*pair, start, stop) for pair in copies)
        agreement[start:stop] = 1 - wrong / (pixels * len(copies))
        advance(stop - start)
    return agreement, (one.load_labels(), other.load_labels())


def _differing(one: SignStore, other: SignStore, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Count the signs of each row that differ: two signs are equal if neither of their bits differs."""
    different = one.read(start, stop) ^ other.read(start, stop)
    counts: npt.NDArray[np.int64] = np.bitwise_count(different[:, 0] | different[:, 1]).sum(axis=1, dtype=np.int64)
    return counts
