"""Layout of rows in chunks and shards: a pure function of the number of rows and their size.

A chunk is the unit of reading; a shard is the unit of work, in one file (zarr-python's words). Both have a power of two
of rows, so that the chunks of a dataset and of its sign stores line up although their rows differ in size.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError

CHUNK_BYTES = 1 << 20
SHARD_BYTES = 1 << 26
MIN_CHUNKS = 100
MIN_SHARDS = 12
MAX_CHUNKS_PER_SHARD = 128


@dataclass(frozen=True)
class Layout:
    """Rows per chunk and rows per shard of an array of ``rows`` rows."""

    rows: int
    chunk: int
    shard: int

    @property
    def shards(self) -> int:
        """The number of shards; the last one may be partly filled."""
        return math.ceil(self.rows / self.shard)

    def shard_rows(self, shard: int) -> slice:
        """Return the rows of one shard."""
        return slice(shard * self.shard, min((shard + 1) * self.shard, self.rows))


def plan(rows: int, row_bytes: int) -> Layout:
    """Choose the layout for ``rows`` rows of ``row_bytes`` bytes each.

    Chunks have about 1 MiB, or less if there would be fewer than about 100 of them; shards have about 64 MiB and at
    most 128 chunks, or less if there would be fewer than 12 of them for the workers. Without rows there are no shards.
    """
    if not rows:
        return Layout(rows=0, chunk=1, shard=1)
    chunk = _nearest_power_of_two(min(CHUNK_BYTES / row_bytes, rows / MIN_CHUNKS))
    chunks = math.ceil(rows / chunk)
    per_shard = min(
        _nearest_power_of_two(SHARD_BYTES / (chunk * row_bytes)),
        power_of_two_below(chunks / MIN_SHARDS),
        MAX_CHUNKS_PER_SHARD,
    )
    return Layout(rows=rows, chunk=chunk, shard=chunk * per_shard)


def split_slice(rows: slice, step: int) -> Iterator[slice]:
    """Yield the rows in slices of ``step`` rows; the last one may be shorter."""
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))


def check_range(start: int, stop: int, *, rows: int, where: str) -> None:
    """Refuse rows that do not exist, before the first one or in the padding of the last shard.

    Raises:
        GradshardError: rows from ``start`` to before ``stop`` are not all among ``rows`` rows.
    """
    if not 0 <= start <= stop <= rows:
        raise GradshardError(
            f"{where} has {rows} rows and not those from {start} to before {stop}: ask for rows from 0 to before {rows}"
        )


def group_by_chunk(rows: npt.NDArray[np.int64], size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each unit of ``size`` rows that holds some of the ascending ``rows``, and their range."""
    if not len(rows):
        return
    first, last = int(rows[0]) // size, int(rows[-1]) // size
    edges = np.searchsorted(rows, np.arange(first, last + 2) * size).tolist()
    for number, (low, high) in enumerate(pairwise(edges), start=first):
        if low < high:
            yield number, low, high


def _nearest_power_of_two(value: float) -> int:
    return 1 << max(0, round(math.log2(value)))


def power_of_two_below(value: float) -> int:
    """Return the largest power of two that is at most the value, and at least 1."""
    return 1 << max(0, math.floor(math.log2(value)))
