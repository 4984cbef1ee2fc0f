"""Batches of images, labels and packed signs, in the order that the caller asks for.

The caller decides which rows and which store each batch takes (see ``shuffle`` and the trainer's schedule); this
module only fetches them. Data that fit the memory budget are loaded once (``InMemoryReader``); otherwise rows pass
through two windows of memory (``WindowedReader``). Both give the same batch for the same request.
"""

import math
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Planes
from gradshard.storage.formats.dataset import Images, Split, label_dtype
from gradshard.storage.formats.gather import (
    PendingReads,
    ReadPool,
    ShardedArray,
    ShardRead,
    Task,
    plan_reads,
    read_tasks,
)
from gradshard.storage.formats.shard_reader import Scratch, Values
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.streaming.buffer_pool import BufferPool
from gradshard.storage.streaming.shuffle import Rows, ShuffleOrder
from gradshard.storage.streaming.windows import Part, Request, Stores, Window, WindowPlanner, names_of, of_turn

T = TypeVar("T")

_THREAD = "gradshard-read-ahead"


class RawBatch(NamedTuple):
    """A batch as it is stored: its rows, images uint8 (n, C, H, W), labels int64 (n,), planes uint8 (n, 2, B) or none.

    For a request that names a tuple of S stores, the planes are (S, n, 2, B).
    """

    rows: Rows
    images: Images
    labels: npt.NDArray[np.int64]
    planes: Planes | None


class Reader(Protocol):
    """Interface of the readers, which turn requests into batches."""

    def read(self, requests: Iterable[Request]) -> Iterator[RawBatch]:
        """Yield one batch per request, in the order of the requests."""
        ...


@dataclass(frozen=True)
class ReadingPlan:
    """Plan for reading a split and its stores: resident or not, and the order's rows per chunk and chunks per window.

    A process holds two windows of ``held`` chunks, or of ``window`` chunks if ``held`` is none. Several ranks together
    may hold a window of the order that is too large for one of them.
    """

    resident: bool
    chunk: int
    window: int
    held: int | None = None

    def order(self, rows: int, *, seed: int, epoch: int) -> ShuffleOrder:
        """Return the order of one epoch."""
        return ShuffleOrder(rows=rows, chunk=self.chunk, window=self.window, seed=seed, epoch=epoch)


def plan_reading(
    split: Split, stores: Mapping[str, SignStore], *, memory: int, window: int | None = None
) -> ReadingPlan:
    """Decide how to read, as a pure function of the arguments and the data's sizes and places.

    If everything fits, including all copies of the stores, it is resident and the order is an exact permutation.
    Otherwise windows are so large that two fit, and of whole shards if the split or a store is remote, so that each
    shard is fetched once per epoch.

    Args:
        split: rows to be read.
        stores: signs to be read, by name.
        memory: bytes of them that a process may keep in memory.
        window: rows per window of the order, if several ranks share it; by default as many as one process holds.
    """
    further = sum((len(store.in_turn) - 1) * _plane_bytes(store) for store in stores.values())
    row_bytes = _row_bytes(split) + sum(_plane_bytes(store) for store in stores.values())
    if len(split) * (row_bytes + further) <= memory:
        return ReadingPlan(resident=True, chunk=len(split), window=1)
    sources: list[Split | SignStore] = [split, *stores.values()]
    chunk = max(source.layout.shard if source.remote else source.layout.chunk for source in sources)
    held = max(1, memory // (2 * chunk * row_bytes))
    return ReadingPlan(False, chunk, held if window is None else max(1, window // chunk), held)


def open_reader(split: Split, stores: Mapping[str, SignStore], plan: ReadingPlan) -> Reader:
    """Return the reader for a plan."""
    return InMemoryReader(split, stores) if plan.resident else WindowedReader(split, stores, plan)


class InMemoryReader:
    """Reader that holds everything in memory, checked against its digests as it is loaded."""

    def __init__(self, split: Split, stores: Mapping[str, SignStore]) -> None:
        self.images, self.labels = split.load()
        self.planes = {name: [copy.load() for copy in store.in_turn] for name, store in stores.items()}

    def read(self, requests: Iterable[Request]) -> Iterator[RawBatch]:
        """Yield one batch per request."""
        for request in requests:
            rows = request.rows
            copies = [of_turn(self.planes[name], request.turn) for name in names_of(request.store)]
            planes = _of_each(request.store, [copy.take(rows, axis=0) for copy in copies])
            yield RawBatch(rows, self.images.take(rows, axis=0), self.labels.take(rows), planes)


@dataclass(frozen=True)
class _Plan:
    """A window, and the reads of shards that gather it."""

    window: Window
    images: list[ShardRead]
    planes: dict[str, list[ShardRead]]


@dataclass(frozen=True)
class _Filling:
    """A window whose rows are being read into memory."""

    window: Window
    rows: Rows
    images: Images
    labels: npt.NDArray[np.int64]
    planes: dict[str, Planes]
    gathering: PendingReads

    def batch(self, part: Part) -> RawBatch:
        """Return the batch of a part, whose rows must have been gathered."""
        rows, names = slice(part.start, part.stop), names_of(part.store)
        found = [
            self.planes[name][first : first + part.stop - part.start]
            for name, first in zip(names, part.first, strict=True)
        ]
        return RawBatch(self.rows[rows], self.images[rows], self.labels[rows], _of_each(part.store, found))


class WindowedReader:
    """Reader with two windows in memory: one is handed out while the next is gathered.

    A window's rows are gathered in the order in which they are requested, so that a batch is a slice of the window. One
    thread looks ahead at the requests; others read, check and decode.
    """

    def __init__(self, split: Split, stores: Mapping[str, SignStore], plan: ReadingPlan) -> None:
        self._split = split
        self._stores = {name: store.in_turn for name, store in stores.items()}
        self._labels = split.read_labels().astype(label_dtype(split.classes))
        self._plan = plan
        # Without a size: if there are several ranks, this one reads only part of each window.
        self._images = BufferPool()
        self._planes = {name: BufferPool() for name in stores}

    def read(self, requests: Iterable[Request]) -> Iterator[RawBatch]:
        """Yield one batch per request.

        Raises:
            GradshardError: a shard is missing or damaged.
        """
        with closing(_ahead(self._plans(requests))) as plans, closing(ReadPool(_THREAD)) as gatherer:
            filling = self._begin(next(plans, None), None, gatherer)
            while filling is not None:
                filling.gathering.wait()
                upcoming = None
                for number, part in enumerate(filling.window.parts):
                    # Once the second batch is requested, the window before has no batch in use: its memory is free.
                    if number == 1:
                        upcoming = self._begin(next(plans, None), filling, gatherer)
                    yield filling.batch(part)
                filling = upcoming or self._begin(next(plans, None), filling, gatherer)

    def _plans(self, requests: Iterable[Request]) -> Iterator[_Plan]:
        cutter = WindowPlanner(
            rows=len(self._split), chunk=self._plan.chunk, window=self._plan.held or self._plan.window
        )
        for window in cutter.windows(requests):
            planes = {name: plan_reads(rows, self._stores[name][0].layout) for name, rows in window.signs.items()}
            yield _Plan(window, plan_reads(window.rows, self._split.layout), planes)

    def _begin(self, plan: _Plan | None, before: _Filling | None, gatherer: ReadPool) -> _Filling | None:
        """Begin to gather a window, and carry over the rows of a request that began in the window before."""
        if plan is None:
            return None
        window, rows = plan.window, plan.window.rows
        labels = self._labels[rows].astype(np.int64)
        images: Values | None = None
        begun: dict[str, Planes] = {}
        if before is not None and before.window.begun is not None:
            store = before.window.begun.store
            earlier = before.batch(before.window.begun)
            images, planes = earlier.images, earlier.planes
            rows, labels = np.concatenate([earlier.rows, rows]), np.concatenate([earlier.labels, labels])
            if planes is not None:
                parts = planes if isinstance(store, tuple) else planes[np.newaxis]
                begun = dict(zip(names_of(store), parts, strict=True))
        gathered, tasks = _gather(self._split, self._images, plan.images, images, self._split.sample_shape)
        signs = {}
        for name, visited in plan.planes.items():
            copy = of_turn(self._stores[name], window.turn)
            shape = 2, _plane_bytes(copy) // 2
            signs[name], more = _gather(copy, self._planes[name], visited, begun.get(name), shape)
            tasks += more
        return _Filling(window, rows, gathered, labels, signs, gatherer.gather(tasks))


def _of_each(store: Stores, planes: list[Planes]) -> Planes | None:
    """Return the planes of a request's stores in the shape that ``RawBatch`` has."""
    if isinstance(store, tuple):
        return np.stack(planes)
    return planes[0] if planes else None


def _gather(
    source: ShardedArray, lender: BufferPool, planned: list[ShardRead], carried: Values | None, shape: tuple[int, ...]
) -> tuple[Values, list[Task]]:
    """Return memory for carried-over and gathered rows, and the tasks that fill it."""
    count = 0 if carried is None else len(carried)
    memory = lender.array((count + sum(len(visit.rows) for visit in planned), *shape))
    tasks = list(read_tasks(source, planned, memory[count:]))
    if carried is not None:
        tasks.insert(0, partial(_copy, carried, memory[:count]))
    return memory, tasks


def _copy(values: Values, out: Values, scratch: Scratch) -> None:
    out[:] = values


def _ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Run an iterator in a thread, an item ahead of the consumer, who gets its exception after the items before it."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=1)
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

    thread = threading.Thread(target=run, name=_THREAD, daemon=True)
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
        # The garbage collector may end an abandoned reader in this very thread.
        if thread is not threading.current_thread():
            thread.join()


def _row_bytes(split: Split) -> int:
    return math.prod(split.sample_shape)


def _plane_bytes(store: SignStore) -> int:
    return 2 * bitplanes.packed_bytes(store.manifest.dataset.pixels)
