"""The order in which an epoch visits the rows: a pure function of (rows, chunk, window, seed, epoch).

The chunks are shuffled; then the rows are shuffled within each window of consecutive shuffled chunks, so that a reader
holds one window at a time. One window over all chunks is an exact permutation. Workers, prefetching and ranks cannot
change the order, and the state of a run is one integer: how many rows have been visited.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShuffleOrder:
    """One epoch's order over ``rows`` rows, in chunks of ``chunk`` rows and windows of ``window`` chunks."""

    rows: int
    chunk: int
    window: int
    seed: int
    epoch: int

    @cached_property
    def chunks(self) -> Rows:
        """All chunk numbers, shuffled."""
        count = math.ceil(self.rows / self.chunk)
        return generator(self.seed, self.epoch, 0).permutation(count)

    def batches(self, size: int, *, first: int = 0) -> Iterator[Rows]:
        """Yield batches of ``size`` rows, from batch ``first`` on; the last one may have fewer."""
        start = first * size
        while start < self.rows:
            window = self._window_at(start)
            rows, offset = _window_rows(self, window), self._window_start(window)
            for begin in range(start - offset, len(rows) - size + 1, size):
                yield rows[begin : begin + size]
                start += size
            if offset <= start < offset + len(rows):
                yield self.take(start, min(start + size, self.rows))
                start += size

    def take(self, start: int, stop: int) -> Rows:
        """Return the rows at positions ``start`` to ``stop`` of the order, int64 (stop - start,)."""
        if not 0 <= start <= stop <= self.rows:
            raise IndexError(f"positions {start}:{stop} of an order of {self.rows} rows")
        first, last = self._window_at(start), self._window_at(max(start, stop - 1))
        offset = self._window_start(first)
        if first == last:
            return _window_rows(self, first)[start - offset : stop - offset]
        rows = np.concatenate([_window_rows(self, window) for window in range(first, last + 1)])
        taken: Rows = rows[start - offset : stop - offset]
        return taken

    def _window_start(self, window: int) -> int:
        """Return the position of a window's first row, given that the last chunk may be short."""
        full = window * self.window * self.chunk
        missing = len(self.chunks) * self.chunk - self.rows
        return min(full - missing if self._short_chunk_position < window * self.window else full, self.rows)

    def _window_at(self, position: int) -> int:
        guess = position // (self.window * self.chunk)
        return guess + 1 if position >= self._window_start(guess + 1) and position < self.rows else guess

    @cached_property
    def _short_chunk_position(self) -> int:
        return int(np.flatnonzero(self.chunks == len(self.chunks) - 1)[0])


@lru_cache(maxsize=4)
def _window_rows(order: ShuffleOrder, window: int) -> Rows:
    chunks = order.chunks[window * order.window : (window + 1) * order.window]
    rows = (chunks[:, None] * order.chunk + np.arange(order.chunk)).ravel()
    shuffled: Rows = generator(order.seed, order.epoch, 1 + window).permutation(rows[rows < order.rows])
    return shuffled


def generator(*key: int) -> np.random.Generator:
    """Return the generator of a key, such as (seed, epoch, ...): the same on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
