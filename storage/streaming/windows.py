"""Windows of a stream of requests: runs of rows that are gathered at once.

A window takes as many of an epoch's next rows as touch no more chunks than a window of the order has. If the requests
follow such an order, these are the order's own windows, so that each chunk is read once per epoch. For any other
requests, the cuts affect only how much is read twice, never what a batch holds.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from gradshard.storage.streaming.shuffle import Rows

T = TypeVar("T")

# The store or stores whose signs a batch takes.
Stores = str | tuple[str, ...] | None


class Request(NamedTuple):
    """Rows of a batch, the store or stores of its signs, if it takes stored ones, and the batch's epoch.

    From a store of K copies, copy ``turn`` modulo K is read. ``windows``, if given, are the numbers of the order's
    windows that the rows belong to: these windows are gathered one after the other, each as a whole if it has no more
    rows than a window of the reader may have.
    """

    rows: Rows
    store: Stores = None
    epoch: int = 0
    turn: int = 0
    windows: Rows | None = None

    def split(self, place: int) -> tuple["Request", "Request"]:
        """Return the request for the rows before a place, and the one for the rest."""
        return self.part(slice(place)), self.part(slice(place, None))

    def part(self, places: slice) -> "Request":
        """Return the request for the rows at some places."""
        windows = None if self.windows is None else self.windows[places]
        return self._replace(rows=self.rows[places], windows=windows)


class Part(NamedTuple):
    """A window's rows from ``start`` to ``stop``; ``first`` is where they begin in the window's signs of each store."""

    start: int
    stop: int
    store: Stores
    first: tuple[int, ...]


def names_of(store: Stores) -> tuple[str, ...]:
    """List the stores of a request or a part."""
    if store is None:
        return ()
    return (store,) if isinstance(store, str) else store


def of_turn(copies: Sequence[T], turn: int) -> T:
    """Return the item of the copy whose turn it is."""
    return copies[turn % len(copies)]


@dataclass(frozen=True)
class Window:
    """Rows that are gathered at once.

    ``rows`` are the new rows, and ``signs`` those among them that take signs from each store. Before them come the rows
    of the unfinished request that the window before has as ``begun``. ``parts`` are the requests that end in this
    window. All are of one epoch and one ``turn``.
    """

    rows: Rows
    signs: dict[str, Rows]
    parts: list[Part]
    begun: Part | None
    turn: int


class WindowPlanner:
    """Planner that cuts requests for some of ``rows`` rows into windows of up to ``window`` chunks or as many rows."""

    def __init__(self, *, rows: int, chunk: int, window: int) -> None:
        self._chunk, self._window = chunk, window
        self._first = np.empty(math.ceil(rows / chunk), dtype=np.int64)

    def windows(self, requests: Iterable[Request]) -> Iterator[Window]:
        """Yield the windows, each as soon as its end is known."""
        waiting: deque[Request] = deque()
        count, begun = 0, None
        for request in requests:
            while waiting and (count >= self._most(waiting) or _parted(waiting[0], request)):
                window = self._next(waiting, begun)
                count, begun = count - len(window.rows), window.begun
                yield window
            waiting.append(request)
            count += len(request.rows)
        while waiting:
            window = self._next(waiting, begun)
            begun = window.begun
            yield window

    def _border(self, rows: Rows, requests: Sequence[Request]) -> int:
        """Count the first rows that are to be gathered at once."""
        border = _window_border(requests)
        if requests[0].windows is not None and border < self._most(requests):
            return border
        return min(border, self._chunk_border(rows))

    def _most(self, requests: Sequence[Request]) -> int:
        """Return how many waiting rows are enough to cut a window without waiting for its end."""
        rows = self._window * self._chunk
        # If a batch spans two windows, all of a rank's part may lie in either one.
        return rows if requests[0].windows is None else rows + 2 * max(len(request.rows) for request in requests)

    def _chunk_border(self, rows: Rows) -> int:
        """Count the first rows that touch no more chunks than a window has."""
        chunks = rows // self._chunk
        places = np.arange(len(rows))
        # Written in reverse, so that each chunk's first place is written last and stays.
        self._first[chunks[::-1]] = places[::-1]
        starts = np.flatnonzero(self._first[chunks] == places)
        return int(starts[self._window]) if len(starts) > self._window else len(rows)

    def _next(self, waiting: deque[Request], begun: Part | None) -> Window:
        """Take the next window off the waiting requests; the rest of a request that crosses its border waits on."""
        rows = np.concatenate([request.rows for request in waiting])
        rows = rows[: self._border(rows, waiting)]
        parts: list[Part] = []
        signs: dict[str, list[Rows]] = {}
        counts: dict[str, int] = {}
        start, stop, left, turn = 0, begun.stop - begun.start if begun else 0, len(rows), waiting[0].turn
        while waiting and (left or not len(waiting[0].rows)):
            new, rest = waiting.popleft().split(left)
            stop, left = stop + len(new.rows), left - len(new.rows)
            names = names_of(new.store)
            part = Part(start, stop, new.store, tuple(counts.get(name, 0) for name in names))
            for name in names:
                signs.setdefault(name, []).append(new.rows)
            if len(rest.rows):
                waiting.appendleft(rest)
                return Window(rows, _joined(signs), parts, part, turn)
            parts.append(part)
            counts |= {name: first + stop - start for name, first in zip(names, part.first, strict=True)}
            start = stop
        return Window(rows, _joined(signs), parts, None, turn)


def _parted(first: Request, following: Request) -> bool:
    """Tell whether two requests begin in different windows of the order, or belong to different epochs or turns."""
    if (first.epoch, first.turn) != (following.epoch, following.turn):
        return True
    if first.windows is None or following.windows is None or not len(first.rows) or not len(following.rows):
        return False
    return bool(first.windows[0] != following.windows[0])


def _window_border(requests: Iterable[Request]) -> int:
    """Count the first rows that belong to one window of the order."""
    count, window = 0, None
    for request in requests:
        if request.windows is not None and len(request.windows):
            window = request.windows[0] if window is None else window
            others = np.flatnonzero(request.windows != window)
            if len(others):
                return count + int(others[0])
        count += len(request.rows)
    return count


def _joined(lists: dict[str, list[Rows]]) -> dict[str, Rows]:
    return {name: np.concatenate(rows) for name, rows in lists.items()}
