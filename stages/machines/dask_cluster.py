"""Work spread over a Dask cluster, on this machine or elsewhere, with failures reported by task.

Only paths and plain values are sent, never a model: a worker opens what it needs itself, once, and checks its digests.
"""

import logging
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import dask
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster, as_completed
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.console.progress import echo
from gradshard.stages.machines.cluster_health import Absence, check_import, check_workers
from gradshard.storage.errors import GradshardError

Result = TypeVar("Result")

_CONNECT_SECONDS = 20
_LOOK_SECONDS = 10.0
# A task is reported as a straggler if it takes this many times the median duration, and at least this many seconds.
_SLOW, _SLOW_SECONDS = 5.0, 60.0
# How often Dask looks at its own threads. Its defaults, 10 and 20 ms in every process, cost two workers and their
# scheduler 6 % of a core, busy or not.
_OBSERVING = {"distributed": {"worker": {"profile": {"interval": "100ms"}}, "admin": {"tick": {"interval": "200ms"}}}}


def threads(place: ClusterConfig, device: str) -> int | None:
    """Return how many tasks each process of a local cluster computes at once; none for a running cluster."""
    if place.scheduler is not None:
        return None
    return 1 if device != "cpu" else max(1, _cores() // max(place.workers, 1))


@contextmanager
def dask_client(place: ClusterConfig, device: str, *, spare: int = 0) -> Iterator[Client]:
    """Yield a client of the cluster; a cluster on this machine is sized to the machine and ends with the context.

    Args:
        place: where the cluster is.
        device: what tasks compute on.
        spare: threads that each process of a cluster on this machine has beyond ``threads``. The tasks themselves must
            limit how many of them compute at once; the others wait for disks.

    Raises:
        GradshardError: no cluster answers at the address, it has no workers, or they lack this version of gradshard.
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
    """Call a function on each item on the cluster; yield items and results as they arrive, in no particular order.

    The task of a lost worker is repeated by another one. ``what`` is the word for an item in messages: ``shard``.

    Raises:
        GradshardError: a task raised it; four workers in a row died of one task, or the cluster is gone (the message
            names the item); a worker cannot import the function's module; or no workers are left.
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
    """Thread that reports tasks far slower than the others, once each; it gives up if no workers are left."""

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
        """Record the duration of a finished task, for the median."""
        # A task that no look has seen took at most the time between two looks.
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
    """Yield a cluster on this machine that ends with the context; the user's Dask configuration overrides our defaults.

    Args:
        workers: how many processes it has; 0: it runs as threads of this process.
        device: what tasks compute on; of several GPUs each process sees one.
        threads_each: how many tasks run at once in each process.
    """
    dask.config.update_defaults(_OBSERVING)
    # Which is started with the first process, and then unblocks the signal.
    resource_tracker.ensure_running()
    # Processes inherit the mask: Ctrl-C, which a terminal sends to all of them, reaches this process alone, which ends
    # the others. Here it comes as soon as they are started.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _start_cluster(workers, device, threads_each) as cluster:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            yield cluster
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_cluster(workers: int, device: str, threads_each: int) -> SpecCluster:
    # Any free port, so that two computations on one machine do not conflict. A cluster within this process has no
    # dashboard, which would take longer to start than all the rest. Logs are silenced: the caller reports failed tasks.
    if device == "cuda" and workers > 0:
        return SpecCluster(
            scheduler={"cls": Scheduler, "options": {"dashboard": True, "dashboard_address": ":0"}},
            workers=_one_worker_a_gpu(workers, threads_each),
            silence_logs=logging.CRITICAL,
        )
    return LocalCluster(
        n_workers=max(workers, 1),
        threads_per_worker=threads_each,
        processes=workers > 0,
        dashboard_address=":0",
        scheduler_kwargs={"dashboard": workers > 0},
        silence_logs=logging.CRITICAL,
    )


def _one_worker_a_gpu(workers: int, threads_each: int) -> dict[int, dict[str, Any]]:
    """Return the specification of workers that each see one GPU; the GPUs are assigned in turn."""
    import torch  # not needed for decoding images

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
