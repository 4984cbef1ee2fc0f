"""Checks that a running Dask cluster has workers, and that they and its scheduler have this version of gradshard."""

import time
from collections.abc import Mapping

from distributed import Client
from distributed.comm.core import CommClosedError

from gradshard import storage
from gradshard.stages.console.progress import echo
from gradshard.storage.errors import GradshardError

_FIRST_WORKER_SECONDS = 300
_NEXT_WORKER_SECONDS = 600.0
# How Dask begins its error about a process that it cannot connect to.
_UNANSWERED = "Timed out trying to connect"
# While a cluster replaces a worker, it may have none for some seconds.
_TOLD_AFTER_SECONDS = 20.0
# Sent as text, since nothing of ours can be unpickled where gradshard is not installed.
_VERSION = "__import__('gradshard.storage', fromlist=['storage']).__version__"


def check_workers(client: Client, address: str) -> None:
    """Wait for the first worker, then check that all workers and the scheduler have this process's gradshard version.

    Raises:
        GradshardError: no worker came, or a worker or the scheduler has another version of gradshard or none.
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
    """Check that every worker can import the module of its tasks: one that cannot would die of the first task.

    Raises:
        GradshardError: a worker cannot, for example because it lacks a library.
    """
    answers = client.run(exec, f"import {module}", {}, on_error="return")
    for worker, answer in answers.items():
        if isinstance(answer, Exception) and not _is_gone(answer):
            raise GradshardError(
                f"the worker at {worker} cannot import {module} ({answer}): install gradshard with what it depends on "
                "where that worker runs, and start it again"
            ) from answer


def _is_gone(answer: object) -> bool:
    """Tell whether an answer says that the process that was asked has just ended."""
    return isinstance(answer, CommClosedError) or (isinstance(answer, OSError) and _UNANSWERED in str(answer))


def _check_versions(answers: Mapping[str, object]) -> None:
    for who, answer in answers.items():
        if _is_gone(answer):
            continue
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
    """Clock of how long a cluster has had no workers; it warns once, and ends after some minutes."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = False

    def look(self, workers: int, now: float | None = None) -> bool:
        """Record the number of workers; return whether there have been none for too long."""
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
