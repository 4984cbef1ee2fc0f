"""Batches of images, labels and packed signs, in the order that the caller asks for.

The caller decides which rows and which store each batch takes (see ``order`` and the trainer's schedule); this module
only fetches them. What fits the memory budget is loaded once (``Resident``); otherwise chunks pass through a bounded
buffer, filled ahead of the caller by one thread (``Windowed``). Both give the same batch for the same request.
"""

import math
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from storage.datasets.dataset import Images, Split
from storage.order import Order, Rows
from storage.signs import bitplanes
from storage.signs.bitplanes import Planes
from storage.signs.store import SignStore

T = TypeVar("T")

_AHEAD = 4


@dataclass(frozen=True)
class Request:
    """Which rows a batch holds and, if it takes stored signs, from which store."""

    rows: Rows
    store: str | None = None


@dataclass(frozen=True)
class RawBatch:
    """A batch as it is stored: images uint8 (n, C, H, W), labels int64 (n,), planes uint8 (n, 2, B) or none."""

    images: Images
    labels: npt.NDArray[np.int64]
    planes: Planes | None


class Reader(Protocol):
    """Whatever turns requests into batches."""

    def read(self, requests: Iterable[Request]) -> Iterator[RawBatch]:
        """Yield one batch per request, in the order of the requests."""
        ...


@dataclass(frozen=True)
class ReadingPlan:
    """How a split and its stores are read: resident or not, and the chunks and windows of the order that suits it."""

    resident: bool
    chunk: int
    window: int

    def order(self, rows: int, *, seed: int, epoch: int) -> Order:
        """The order of one epoch."""
        return Order(rows=rows, chunk=self.chunk, window=self.window, seed=seed, epoch=epoch)


def plan_reading(split: Split, stores: Mapping[str, SignStore], *, memory: int) -> ReadingPlan:
    """Decide how to read, given a budget in bytes: a pure function of the data's sizes, their places and the budget.

    Everything resident if it fits, with an exact permutation as the order; else windows of which two fit, of whole
    shards if a store is remote, so that each is fetched once an epoch.
    """
    row_bytes = _row_bytes(split) + sum(_plane_bytes(store) for store in stores.values())
    if len(split) * row_bytes <= memory:
        return ReadingPlan(resident=True, chunk=len(split), window=1)
    units = [store.layout.shard if store.remote else store.layout.chunk for store in stores.values()]
    chunk = max([split.chunk, *units])
    return ReadingPlan(resident=False, chunk=chunk, window=max(1, memory // (2 * chunk * row_bytes)))


def open_reader(split: Split, stores: Mapping[str, SignStore], plan: ReadingPlan, *, batch: int) -> Reader:
    """The reader for a plan; ``batch`` is the largest number of rows of a request."""
    return Resident(split, stores) if plan.resident else Windowed(split, stores, plan, batch=batch)


class Resident:
    """Everything in memory, checked against its digests as it is loaded."""

    def __init__(self, split: Split, stores: Mapping[str, SignStore]) -> None:
        self.images, self.labels = split.load()
        self.planes = {name: store.load() for name, store in stores.items()}

    def read(self, requests: Iterable[Request]) -> Iterator[RawBatch]:
        """Yield one batch per request."""
        for request in requests:
            rows = request.rows
            planes = None if request.store is None else self.planes[request.store][rows]
            yield RawBatch(images=self.images[rows], labels=self.labels[rows], planes=planes)


class Windowed:
    """Chunks pass through buffers that hold two windows; one thread reads ahead of the caller."""

    def __init__(self, split: Split, stores: Mapping[str, SignStore], plan: ReadingPlan, *, batch: int) -> None:
        slots = 2 * plan.window + math.ceil(batch / plan.chunk)
        self._labels = split.read_labels()
        self._images = _ChunkBuffer(split.read_images, plan.chunk, len(split), slots)
        self._planes = {name: _ChunkBuffer(store.read, plan.chunk, len(split), slots) for name, store in stores.items()}

    def read(self, requests: Iterable[Request]) -> Iterator[RawBatch]:
        """Yield one batch per request."""
        return _ahead(self._batch(request) for request in requests)

    def _batch(self, request: Request) -> RawBatch:
        planes = None if request.store is None else self._planes[request.store].take(request.rows)
        return RawBatch(images=self._images.take(request.rows), labels=self._labels[request.rows], planes=planes)


class _ChunkBuffer:
    """The most recently used chunks of an array, in one block of memory from which rows are taken at once."""

    def __init__(self, read: Callable[[int, int], npt.NDArray[np.uint8]], chunk: int, rows: int, slots: int) -> None:
        self._read, self._chunk, self._rows = read, chunk, rows
        self._slots = min(slots, math.ceil(rows / chunk))
        self._slot_of = np.full(math.ceil(rows / chunk), -1, dtype=np.int64)
        self._recent: OrderedDict[int, int] = OrderedDict()
        self._block: npt.NDArray[np.uint8] | None = None

    def take(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """The given rows, in that order."""
        chunks = rows // self._chunk
        needed = np.unique(chunks).tolist()
        for chunk in needed:
            if chunk in self._recent:
                self._recent.move_to_end(chunk)
        for chunk in needed:
            if chunk not in self._recent:
                self._load(chunk)
        assert self._block is not None
        taken: npt.NDArray[np.uint8] = self._block[self._slot_of[chunks] * self._chunk + rows % self._chunk]
        return taken

    def _load(self, chunk: int) -> None:
        values = self._read(chunk * self._chunk, min((chunk + 1) * self._chunk, self._rows))
        if self._block is None:
            self._block = np.empty((self._slots * self._chunk, *values.shape[1:]), dtype=np.uint8)
        if len(self._recent) < self._slots:
            slot = len(self._recent)
        else:
            evicted, slot = self._recent.popitem(last=False)
            self._slot_of[evicted] = -1
        start = slot * self._chunk
        self._block[start : start + len(values)] = values
        self._recent[chunk] = slot
        self._slot_of[chunk] = slot


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Run an iterator in a thread, a few items ahead of whoever takes them; its exception is raised where it ended."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=_AHEAD)
    stop = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None, StopIteration())

    thread = threading.Thread(target=run, name="gradshard-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        stop.set()
        thread.join()


def _row_bytes(split: Split) -> int:
    return math.prod(split.sample_shape)


def _plane_bytes(store: SignStore) -> int:
    return 2 * bitplanes.packed_bytes(store.manifest.dataset.pixels)
