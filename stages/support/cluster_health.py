"""Checks that a running Dask cluster can do our work: it has workers; they and its scheduler have this gradshard."""

import time
from collections.abc import Mapping

from distributed import Client
from distributed.comm.core import CommClosedError

from gradshard import storage
from gradshard.stages.support.progress import echo
from gradshard.storage.errors import GradshardError

_FIRST_WORKER_SECONDS = 300
_NEXT_WORKER_SECONDS = 600.0
# While one worker is replaced by another there may be none for some seconds.
_TOLD_AFTER_SECONDS = 20.0
# Sent as text, since nothing of ours can be unpickled where gradshard is not installed.
_VERSION = "__import__('gradshard.storage', fromlist=['storage']).__version__"


def check_workers(client: Client, address: str) -> None:
    """Wait for the first worker, then check that every one, and the scheduler, has the same gradshard as this process.

    Raises:
        GradshardError: no worker came, or one of them or the scheduler cannot import gradshard, or has another version.
    """
    if not client.nthreads():
        echo(f"no workers at {address} yet: start some by `dask worker {address}`; waiting {_FIRST_WORKER_SECONDS} s")
        try:
            client.wait_for_workers(1, timeout=_FIRST_WORKER_SECONDS)
        except TimeoutError as error:
            raise GradshardError(
                f"the Dask scheduler at {address} had no workers for {_FIRST_WORKER_SECONDS} s: start some by "
                f"`dask worker {address}`, then the same command again"
            ) from error
    answers = client.run(eval, _VERSION, on_error="return")
    _check_versions({f"the worker at {worker}": answer for worker, answer in answers.items()})
    try:
        _check_versions({f"the scheduler at {address}": client.run_on_scheduler(eval, _VERSION)})
    except ImportError as error:
        _check_versions({f"the scheduler at {address}": error})


def check_import(client: Client, module: str) -> None:
    """Check that every worker can import the module of the tasks that it will get: one that cannot dies of the first.

    Raises:
        GradshardError: one cannot, because it lacks a library, say.
    """
    answers = client.run(exec, f"import {module}", {}, on_error="return")
    for worker, answer in answers.items():
        if isinstance(answer, Exception) and not isinstance(answer, CommClosedError):
            raise GradshardError(
                f"the worker at {worker} cannot import {module} ({answer}): install gradshard with what it depends on "
                "where that worker runs, and start it again"
            ) from answer


def _check_versions(answers: Mapping[str, object]) -> None:
    for who, answer in answers.items():
        if isinstance(answer, CommClosedError):
            continue  # it has just gone
        if isinstance(answer, Exception):
            raise GradshardError(
                f"{who} cannot import gradshard ({answer}): install it where that process runs, with the Python that "
                "runs it, and start it again"
            ) from answer
        if answer != storage.__version__:
            raise GradshardError(
                f"{who} has gradshard {answer}, and this is {storage.__version__}: install the same there, and start "
                "it again"
            )


class Absence:
    """Clock of how long a cluster has had no workers; told once, and at an end after some minutes."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = False

    def look(self, workers: int, now: float | None = None) -> bool:
        """Take note of how many workers there are; true once there have been none for too long."""
        now = time.monotonic() if now is None else now
        if workers:
            self._since, self._told = None, False
            return False
        self._since = now if self._since is None else self._since
        if now - self._since >= _TOLD_AFTER_SECONDS and not self._told:
            self._told = True
            echo(
                "no workers are left (their logs say why; one that lacks a library dies of its first task): start some "
                f"by `dask worker`; waiting {_NEXT_WORKER_SECONDS:.0f} s for one"
            )
        return now - self._since >= _NEXT_WORKER_SECONDS
