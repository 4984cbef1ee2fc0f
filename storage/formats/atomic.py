"""Files that appear whole or not at all."""

import errno
import functools
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

# The errors of file systems that cannot sync a folder.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)
# The end of the names of unfinished files: .dvcignore has it too.
_TEMPORARY = ".tmp"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on a clean exit it is synced to disk and takes ``path``'s place.

    After an exception, or a kill, ``path`` is what it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}"
    # With the permissions that any new file gets, unlike those of tempfile.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def unfinished_file(name: str) -> str | None:
    """Return the file, by its relative path, whose unfinished copy a path is; none if it is no unfinished file."""
    *folder, last = name.split("/")
    found = re.fullmatch(rf"\.(.+)\.[0-9a-z_]{{8}}{re.escape(_TEMPORARY)}", last)
    return None if found is None else "/".join([*folder, found[1]])


def write_text(path: Path, text: str) -> None:
    """Replace a file's content by ``text`` (UTF-8), atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def copy(source: Path, target: Path) -> None:
    """Copy a file's content to ``target``, atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def replace_folder(source: Path, target: Path) -> None:
    """Rename the folder ``source`` to ``target``; a folder that was there is removed once the new one is in place.

    Both must be on one file system. If the process is killed, the new folder is still whole, at either place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f"old-{target.name}-", dir=source.parent)) / target.name
        target.rename(old)
        source.rename(target)
        shutil.rmtree(old.parent)
    else:
        source.rename(target)
    sync(target.parent)


def remove_strays(folder: Path, *, keep: Collection[str]) -> None:
    """Remove what killed writers left behind: every file but those kept, named relative to ``folder``."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in keep:
            path.unlink()


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed writers left below a folder."""
    for path in folder.rglob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def remove_outdated(folder: Path, suffix: str, *, keep: Collection[str], ours: Callable[[Path], bool]) -> None:
    """Remove the files directly in a folder that ``atomic_path`` wrote, or began, under names with one suffix.

    Args:
        folder: the folder, in which all other files stay.
        suffix: the end of the names, such as ``.json``.
        keep: the names of the files that stay.
        ours: tells whether a file is one that the caller wrote.
    """
    begun = [path for path in folder.glob(f".*{suffix}.*{_TEMPORARY}") if path.is_file()]
    others = (path for path in folder.glob(f"[!.]*{suffix}") if path.is_file() and path.name not in keep)
    written = [path for path in others if ours(path)]
    for path in (*begun, *written):
        path.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk.

    Some network and virtual file systems cannot sync a folder. Then only durability is weaker: after a power failure a
    name may be missing. A warning says so once.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC or not path.is_dir():
            raise
        _tell_weaker_once()
    finally:
        os.close(descriptor)


@functools.cache
def _tell_weaker_once() -> None:
    logging.getLogger("gradshard").warning(
        "folders here cannot be synced to their disk (the file system does not know how): all goes on, but what was "
        "just written may be lost if the power fails"
    )
