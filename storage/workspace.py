"""Work in progress that survives a kill: built in a folder named by what it is made from, renamed when whole.

DVC deletes a stage's outputs before it runs the stage, and a stage outlives a killed ``dvc``. So nothing
unfinished lies among the outputs, and two processes that build the same thing never write at the same time.
"""

import errno
import os
import shutil
import tempfile
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
        root: the folder of all such folders; it must be on the file system of the outputs, as ``root_for`` is.
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


def root_for(target: Path) -> Path:
    """Return the folder for unfinished work that can be renamed to ``target``.

    That is ``ROOT``, or a folder of that name beside ``target`` where that is on another file system, or nothing can be
    written here.
    """
    there = next(folder for folder in target.absolute().parents if folder.exists())
    return ROOT if _is_writable(ROOT) and _can_rename(ROOT, there) else target.parent / ROOT


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:  # whoever names a target elsewhere may be where nothing can be written
        return False
    return os.access(folder, os.W_OK)


def _can_rename(source: Path, target: Path) -> bool:
    """Try it: numbers of devices do not tell of a folder that a container has from elsewhere on the same disk."""
    handle, name = tempfile.mkstemp(prefix=".probe.", suffix=".tmp", dir=source)
    os.close(handle)
    tried, moved = Path(name), target / Path(name).name
    try:
        tried.rename(moved)
    except OSError as error:
        tried.unlink()
        if error.errno != errno.EXDEV:
            raise
        return False
    moved.unlink()
    return True
