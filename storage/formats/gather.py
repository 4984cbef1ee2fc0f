"""Rows from many shards gathered into memory, in any order, by several threads.

Reading, checking and decoding let other Python threads run, so no processes are needed.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from gradshard.storage.formats.chunking import Layout, group_by_chunk
from gradshard.storage.formats.shard_reader import Rows, Scratch, Values

Task = Callable[[Scratch], None]

THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class ShardedArray(Protocol):
    """An array on disk, uint8 (N, ...), cut into shards."""

    @property
    def layout(self) -> Layout:
        """Return the layout of its rows."""
        ...

    def take(self, shard: int, rows: Rows, out: Values, positions: Rows, scratch: Scratch) -> None:
        """Read the rows of a shard, ascending, into ``out[positions]``."""
        ...


@dataclass(frozen=True)
class ShardRead:
    """Rows to be taken from one shard, ascending, and where each goes."""

    shard: int
    rows: Rows
    positions: Rows


def plan_reads(rows: Rows, layout: Layout) -> list[ShardRead]:
    """Return the reads that gather ``rows`` in their order, one read of each shard that holds some of them."""
    if not len(rows):
        return []
    # A shift of 16 would be too far for narrower numbers.
    rows = rows.astype(np.int64, copy=False)
    positions = _ascending(rows)
    ascending = rows[positions]
    return [
        ShardRead(shard, ascending[low:high], positions[low:high])
        for shard, low, high in group_by_chunk(ascending, layout.shard)
    ]


def _ascending(rows: Rows) -> Rows:
    """Sort like ``np.argsort``, but by digits of 16 bits, which NumPy radix-sorts about ten times faster."""
    order = np.argsort((rows & 0xFFFF).astype(np.uint16), kind="stable")
    for shift in range(16, int(rows.max()).bit_length(), 16):
        digits = (rows[order] >> shift & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digits, kind="stable")]
    return order


def gather(source: ShardedArray, rows: Rows, out: Values) -> None:
    """Gather rows into ``out``, in their order, in this thread.

    Raises:
        GradshardError: a shard is missing or damaged.
    """
    scratch = Scratch()
    for visit in plan_reads(rows, source.layout):
        source.take(visit.shard, visit.rows, out, visit.positions, scratch)


def read_tasks(source: ShardedArray, planned: Iterable[ShardRead], out: Values) -> Iterator[Task]:
    """Yield the tasks that do the planned reads into ``out``."""
    for visit in planned:
        yield partial(source.take, visit.shard, visit.rows, out, visit.positions)


@dataclass(frozen=True)
class PendingReads:
    """Tasks in progress."""

    workers: list[Future[None]]

    def wait(self) -> None:
        """Wait until all are done.

        Raises:
            GradshardError: a shard is missing or damaged.
        """
        for worker in self.workers:
            worker.result()


class ReadPool:
    """A pool of threads that do tasks."""

    def __init__(self, name: str) -> None:
        self._numbers = numbers = set[int]()
        self._threads = ThreadPoolExecutor(THREADS, name, lambda: numbers.add(threading.get_ident()))
        self._closed = False
        self._beginning = threading.Lock()

    def gather(self, tasks: Iterable[Task]) -> PendingReads:
        """Start doing tasks, several at a time."""
        waiting = iter(list(tasks))
        # All threads are started before one works: Python waits five milliseconds before it takes its lock from a
        # working thread that gives it up only for moments, and each start would be delayed by that.
        with self._beginning:
            return PendingReads([self._threads.submit(self._work, waiting) for _ in range(THREADS)])

    def close(self) -> None:
        """Drop tasks that have not begun, and end the threads."""
        self._closed = True
        # The garbage collector may end an abandoned reader in one of these threads.
        self._threads.shutdown(wait=threading.get_ident() not in self._numbers, cancel_futures=True)

    def _work(self, waiting: Iterator[Task]) -> None:
        with self._beginning:
            pass
        for task in waiting:
            if self._closed:
                return
            try:
                task(_scratch())
            except BaseException:
                deque(waiting, maxlen=0)  # the other threads need not go on
                raise


_own = threading.local()


def _scratch() -> Scratch:
    """Return the calling thread's own scratch memory."""
    if not hasattr(_own, "scratch"):
        _own.scratch = Scratch()
    scratch: Scratch = _own.scratch
    return scratch
