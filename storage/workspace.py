"""Work in progress that survives a kill: built in a folder named by what it is made from, renamed when whole.

DVC deletes a stage's outputs before it runs the stage, and a stage outlives a killed ``dvc``. So nothing
unfinished lies among the outputs, and two processes that build the same thing never write at the same time.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gradshard.storage.formats.digests import digest_of

ROOT = Path(".partial")


@dataclass(frozen=True)
class Workspace:
    """A folder for unfinished work; ``waited`` if another process was making the same and has just stopped."""

    folder: Path
    waited: bool


@contextmanager
def workspace(
    name: str,
    recipe: Mapping[str, object],
    *,
    on_wait: Callable[[str], None],
    root: Path = ROOT,
) -> Iterator[Workspace]:
    """Give the folder in which ``name`` is built from ``recipe``, for this process alone.

    The folder keeps what an earlier, killed process with the same recipe left there, and is removed on a clean exit:
    the caller has published its content by then. After an exception it stays.

    Args:
        name: the stage and model, as in ``precompute-A``.
        recipe: everything the content follows from: digests of inputs, parameters, versions.
        on_wait: called with a process number if another process is building the same, before waiting for it.
        root: the folder of all such folders; it must be on the file system of the outputs.
    """
    folder = root / f"{name}-{digest_of(recipe)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    holder = folder.with_name(f"{folder.name}.pid")
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waited = True
        on_wait(holder.read_text(encoding="utf-8") if holder.exists() else "unknown")
        lock.acquire()
    try:
        holder.write_text(str(os.getpid()), encoding="utf-8")
        folder.mkdir(exist_ok=True)
        yield Workspace(folder=folder, waited=waited)
        shutil.rmtree(folder)
        holder.unlink()
    finally:
        lock.release()
