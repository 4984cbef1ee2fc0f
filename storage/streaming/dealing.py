"""Batches of a streamed order: the rows of each window are dealt to the batches by whole chunks.

A window consists of shuffled chunks, each with its rows shuffled. The rows are dealt in this sequence to the places
that the window fills: first to all batches that take signs of one store, then to those of the next store. Among the
batches of one store they go to the first place of each batch, the batches in random order, then to the second place of
each, and so on. Thus

- the batches of a store together hold whole chunks, so no other store is read for their rows;
- a range of places, such as one rank's, holds whole chunks over all batches, so no other rank reads them;
- the rows of a chunk are spread over as many batches as possible: if a window has more batches of a store than a chunk
  has rows, a batch holds fewer neighbours than one drawn from the window at random. If it has fewer, two stores are
  dealt as one: their chunks are read twice, and spread over twice as many batches.

A chunk may be cut at the borders between stores and between ranks: at most s * w chunks of a window, with s stores and
w ranks. The rows of a batch depend on the order, the batch size and the store of each batch, never on the ranks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from gradshard.storage.streaming.shuffle import Rows, ShuffleOrder, generator
from gradshard.storage.streaming.windows import Request, Stores


@dataclass(frozen=True)
class DealtBatches:
    """One epoch's batches of ``size`` rows; batch b takes signs from ``store_of(b)``, none holds rows ``left_out``."""

    order: ShuffleOrder
    size: int
    store_of: Callable[[int], Stores]
    left_out: Rows | None = None

    def requests(self, *, first: int = 0) -> Iterator[Request]:
        """Yield the batches from batch ``first`` on; the last one may have fewer rows."""
        lengths = self._lengths()
        total = sum(lengths)
        begun: list[tuple[Rows, Rows]] = []
        for window, stop in enumerate(accumulate(lengths)):
            start = stop - lengths[window]
            if stop <= first * self.size or start == stop:
                continue
            rows = self._deal(window, start, total)
            for batch in range(max(start // self.size, first), (stop - 1) // self.size + 1):
                end = min((batch + 1) * self.size, total)
                part = rows[max(batch * self.size - start, 0) : end - start]
                begun.append((part, np.full(len(part), window)))
                if end <= stop:
                    taken, windows = (np.concatenate(parts) for parts in zip(*begun, strict=True))
                    yield Request(taken, self.store_of(batch), self.order.epoch, windows=windows)
                    begun = []

    def _lengths(self) -> list[int]:
        """Count the rows of each window: the last chunk may be short, and some rows are left out."""
        order = self.order
        held = np.full(len(order.chunks), order.chunk, dtype=np.int32)
        held[-1] = order.rows - order.chunk * (len(held) - 1)
        if self.left_out is not None:
            held -= np.bincount(self.left_out // order.chunk, minlength=len(held)).astype(np.int32)
        starts = np.arange(0, len(held), order.window)
        lengths: list[int] = np.add.reduceat(held[order.chunks], starts, dtype=np.int64).tolist()
        return lengths

    def _deal(self, window: int, start: int, total: int) -> Rows:
        """Return the rows of a window in the order of the places that it fills, beginning at ``start``."""
        order, draws = self.order, generator(self.order.seed, self.order.epoch, 1 + window, 1)
        chunks = order.chunks[window * order.window : (window + 1) * order.window]
        rows = draws.permuted(chunks[:, None] * order.chunk + np.arange(order.chunk), axis=1).ravel()
        rows = rows[rows < order.rows]
        if self.left_out is not None:
            rows = rows[~np.isin(rows, self.left_out)]
        batches, places = np.divmod(np.arange(start, start + len(rows)), self.size)
        # The last batch may be smaller: its places are scaled, so that each rank has the same share as in the others.
        last = batches == (total - 1) // self.size
        places[last] = places[last] * self.size // ((total - 1) % self.size + 1)
        number = batches - batches[0]
        among = draws.permutation(number[-1] + 1)
        dealt = np.empty_like(rows)
        dealt[np.lexsort((among[number], places, self._turns(batches)[number]))] = rows
        return dealt

    def _turns(self, batches: Rows) -> Rows:
        """Number the stores of the batches in order of first occurrence; two share a number if batches are few."""
        numbers: dict[Stores, int] = {}
        stores = map(self.store_of, range(int(batches[0]), int(batches[-1]) + 1))
        turns = np.array([numbers.setdefault(store, len(numbers)) for store in stores])
        return turns if len(turns) >= self.order.chunk * len(numbers) else turns // 2
