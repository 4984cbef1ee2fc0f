"""Work in progress that survives a kill: built in a folder named after its inputs, and renamed when complete.

DVC deletes a stage's outputs before it runs the stage, and a stage outlives a killed ``dvc``. So unfinished
work is kept apart from the outputs, and two processes that build the same thing never write at the same time.
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

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.digests import digest_of

ROOT = Path(".partial")


@dataclass(frozen=True)
class Workspace:
    """A folder for unfinished work; ``waited`` if another process was building the same thing and has just ended."""

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
    """Yield the folder in which this process alone builds ``name`` from ``recipe``.

    The folder still contains what an earlier, killed process with the same recipe left. It is removed on a clean exit,
    so the caller must have published its content by then; after an exception it stays.

    Args:
        name: the stage and model, as in ``precompute-A``.
        recipe: everything that determines the content: digests of inputs, parameters, versions.
        on_wait: called with the number of another process that is building the same thing, before waiting for it.
        root: the parent of all such folders; it must be on the file system of the outputs, see ``root_for``.
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
        on_wait(_process(holder))
        lock.acquire()
    try:
        holder.write_text(str(os.getpid()), encoding="utf-8")
        folder.mkdir(exist_ok=True)
        yield Workspace(folder=folder, waited=waited)
        # Renamed first: a process that is killed in the removal must not leave some of it to the next.
        done = folder.with_name(f"{folder.name}.done")
        shutil.rmtree(done, ignore_errors=True)
        folder.rename(done)
        shutil.rmtree(done)
        holder.unlink()
    finally:
        lock.release()


def _process(holder: Path) -> str:
    """Return the number of the process that holds the work, as it wrote it."""
    try:
        return holder.read_text(encoding="utf-8") or "unknown"
    except FileNotFoundError:  # it has just ended
        return "unknown"


def root_for(target: Path) -> Path:
    """Return the folder for unfinished work that can be renamed to ``target``.

    This is ``ROOT``, or a folder of the same name beside ``target`` if ``target`` is on another file system or the
    current folder cannot be written to.

    Raises:
        GradshardError: ``target`` is a link, whose place a new folder would take.
    """
    if target.is_symlink():
        raise GradshardError(
            f"{target} is a link to {target.readlink()}, and a new folder would take the link's place: remove it or, "
            f"for another disk, make {target.parent} a link instead"
        )
    there = next(folder for folder in target.absolute().parents if folder.exists())
    return ROOT if _is_writable(ROOT) and _can_rename(ROOT, there) else target.parent / ROOT


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:  # the current folder may be read-only if the target is elsewhere
        return False
    return os.access(folder, os.W_OK)


def _can_rename(source: Path, target: Path) -> bool:
    """Try to rename a file: device numbers do not reveal a container's mount from elsewhere on the same disk."""
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
