"""Work spread over a Dask cluster, one on this machine or a running one; and what goes wrong, told by task.

Paths and plain values travel, never a model: what a worker needs it opens itself, once, and holds against digests.
"""

import logging
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import dask
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster, as_completed
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from gradshard.stages.support.cluster_health import Absence, check_import, check_workers
from gradshard.stages.support.options import ClusterConfig
from gradshard.stages.support.progress import echo
from gradshard.storage.errors import GradshardError

Result = TypeVar("Result")

_CONNECT_SECONDS = 20
_LOOK_SECONDS = 10.0
# A task is told as a straggler when it takes so much longer than the median one, and at least so many seconds.
_SLOW, _SLOW_SECONDS = 5.0, 60.0
# How often Dask looks at what its own threads do. By default it does so every 10 and 20 ms, in every process, which
# takes 6 % of a core from two workers and their scheduler, busy or not.
_OBSERVING = {"distributed": {"worker": {"profile": {"interval": "100ms"}}, "admin": {"tick": {"interval": "200ms"}}}}


def threads(place: ClusterConfig, device: str) -> int | None:
    """Return how many tasks compute at once in each process of a cluster here; none: a running cluster decides."""
    if place.scheduler is not None:
        return None
    return 1 if device != "cpu" else max(1, _cores() // max(place.workers, 1))


@contextmanager
def dask_client(place: ClusterConfig, device: str, *, spare: int = 0) -> Iterator[Client]:
    """Give a client of the cluster; one on this machine is sized to it and ends with the context.

    Args:
        place: where it is.
        device: what tasks compute on.
        spare: so many threads more than ``threads`` has each process of a cluster on this machine, for tasks that see
            to it themselves that no more compute at once: the others wait for disks.

    Raises:
        GradshardError: no cluster answers at the address, it has no workers, or they cannot import gradshard.
    """
    if place.scheduler is not None:
        with _remote_client(place.scheduler) as client:
            check_workers(client, place.scheduler)
            echo(f"computing on {place.scheduler}, {_workers_text(client)}; dashboard: {client.dashboard_link}")
            yield client
        return
    with (
        local_cluster(place.workers, device, (threads(place, device) or 1) + spare) as cluster,
        Client(cluster) as client,
    ):
        if place.workers:
            echo(f"computing in {_workers_text(client)}; dashboard: {client.dashboard_link}")
        yield client


def map_tasks(
    client: Client, function: Callable[[int], Result], items: Sequence[int], *, what: str
) -> Iterator[tuple[int, Result]]:
    """Call a function of each item on the cluster; yields items and results as they come, in no order.

    A worker that is lost costs only its task, which another one repeats. ``what`` names an item: ``shard``.

    Raises:
        GradshardError: a task failed, or lost four workers in a row; the sentence names the item. Or a worker cannot
            import the function's module, or there are no workers left.
    """
    if client.cluster is None:
        check_import(client, getattr(function, "func", function).__module__)
    futures = client.map(function, items, pure=False, retries=0, key=what)
    item_of = {future.key: item for future, item in zip(futures, items, strict=True)}
    watch = _Watch(client, item_of, what, give_up=lambda: client.cancel(futures))
    try:
        for future in as_completed(futures):
            item = item_of[future.key]
            yield item, _result(future, what, item)
            watch.done(future.key)
            future.release()
    finally:
        watch.stop()


def _result(future: Any, what: str, item: int) -> Any:
    try:
        return future.result()
    except KilledWorker as error:
        raise GradshardError(
            f"{what} {item}: {error.allowed_failures + 1} workers died while computing it, the last at "
            f"{error.last_worker.address} (out of memory, most likely): give workers more memory, or start fewer of "
            "them, and run the same command again to go on from there"
        ) from error
    except (FutureCancelledError, CommClosedError) as error:
        raise GradshardError(
            f"{what} {item}: the cluster is gone ({error}): start it again, then the same command to go on from there"
        ) from error


class _Watch:
    """Tells, once each, which tasks take far longer than the others, and on which worker; and gives up without any."""

    def __init__(self, client: Client, item_of: dict[str, int], what: str, *, give_up: Callable[[], object]) -> None:
        self._client, self._item_of, self._what, self._give_up = client, item_of, what, give_up
        self._absence = Absence()
        self._seen: dict[str, float] = {}
        self._took: list[float] = []
        self._told: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gradshard-watch", daemon=True)
        self._thread.start()

    def done(self, key: str) -> None:
        """Note a task that is done, for the median."""
        # One that no look has seen took no longer than from one look to the next.
        now = time.monotonic()
        self._took.append(now - self._seen.get(key, now - _LOOK_SECONDS))

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                self._look(time.monotonic())
            except (OSError, RuntimeError, ValueError):
                return

    def _look(self, now: float) -> None:
        processing = self._client.processing()
        if self._absence.look(len(processing), now):
            self._give_up()
        for worker, keys in processing.items():
            for key in keys:
                if key in self._item_of:
                    self._judge(key, worker, now - self._seen.setdefault(key, now))

    def _judge(self, key: str, worker: str, seconds: float) -> None:
        if key in self._told or not self._took:
            return
        usual = statistics.median(self._took)
        if seconds > max(_SLOW_SECONDS, _SLOW * usual):
            self._told.add(key)
            echo(
                f"{self._what} {self._item_of[key]} has been at {worker} for {seconds:.0f} s, others took "
                f"{usual:.0f} s: look at that worker; if it is lost, its task is repeated elsewhere"
            )


@contextmanager
def _remote_client(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise GradshardError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}): start one by `dask scheduler` and "
            "workers by `dask worker`, or leave --scheduler out"
        ) from error
    with client:
        yield client


@contextmanager
def local_cluster(workers: int, device: str, threads_each: int) -> Iterator[SpecCluster]:
    """Give a cluster on this machine that ends with the context; what the user's configuration of Dask sets, holds.

    Args:
        workers: how many processes it has; none: it is threads of this process.
        device: what tasks compute on; of GPUs each process sees one.
        threads_each: how many tasks run at once in each process.
    """
    dask.config.update_defaults(_OBSERVING)
    # A free port: two computations side by side must not quarrel over one. A cluster that is this process alone has no
    # dashboard, since its start takes longer than that of all the rest. A failed task is told once, by its caller.
    options: dict[str, Any] = {
        "dashboard_address": ":0",
        "scheduler_kwargs": {"dashboard": workers > 0},
        "silence_logs": logging.CRITICAL,
    }
    if device == "cuda" and workers > 0:
        with SpecCluster(
            scheduler={"cls": Scheduler, "options": {"dashboard": True, "dashboard_address": ":0"}},
            workers=_one_worker_a_gpu(workers, threads_each),
            silence_logs=logging.CRITICAL,
        ) as cluster:
            yield cluster
        return
    with LocalCluster(
        n_workers=max(workers, 1), threads_per_worker=threads_each, processes=workers > 0, **options
    ) as cluster:
        yield cluster


def _one_worker_a_gpu(workers: int, threads_each: int) -> dict[int, dict[str, Any]]:
    """Workers each of which sees one GPU; they take the GPUs in turn."""
    import torch  # not needed by whoever decodes images

    gpus = max(1, torch.cuda.device_count())
    return {
        number: {
            "cls": Nanny,
            "options": {"nthreads": threads_each, "env": {"CUDA_VISIBLE_DEVICES": str(number % gpus)}},
        }
        for number in range(workers)
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers_text(client: Client) -> str:
    each = client.nthreads()
    return f"{len(each)} workers with {sum(each.values())} threads"
