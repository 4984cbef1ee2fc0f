"""Dask workers on this machine, as many as its cores feed."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, LocalCluster


@contextmanager
def local_client(workers: int, *, threads: int | None = None) -> Iterator[Client]:
    """A client of a cluster of its own: ``workers`` processes or, with 0, threads of this process.

    Args:
        workers: how many processes.
        threads: tasks that one process runs at a time; by default its share of the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with (
        LocalCluster(
            n_workers=max(workers, 1),
            threads_per_worker=threads or max(1, cores // max(workers, 1)),
            processes=workers > 0,
            dashboard_address=":0",  # any free port: two computations side by side must not quarrel over one
            silence_logs=logging.CRITICAL,  # a failed task is told once, by the caller
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
