"""The places of sign stores, and of what is made from them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.remote import cache as cache_reader
from gradshard.storage.remote.location import is_url
from gradshard.storage.workspace import ROOT

Place = str | Path | SignStore

# The folder of everything that may be deleted at any time.
CACHE = ROOT / "loading"
_REMOTE_BYTES = 10 << 30


def open_place(place: Place, cache: Path) -> SignStore:
    """Open the store at a path or URL, or take an open one.

    Raises:
        GradshardError: the place is of another type, there is no store, it is not valid, or the connection failed.
    """
    if isinstance(place, SignStore):
        return place
    if not isinstance(place, str | os.PathLike):
        raise GradshardError(
            f"a store is a {type(place).__name__}, not a path, a URL or an open store: give several as a mapping of "
            "names to stores"
        )
    return cache_reader.open_place(str(place), cache / "stores", _REMOTE_BYTES)


def check_target(target: str | Path) -> None:
    """Refuse a place that no store can be written to, before any work.

    Raises:
        GradshardError: it is no path, it is a URL, or its folder cannot be written.
    """
    if not isinstance(target, str | os.PathLike):
        raise GradshardError(f"the store's place is a {type(target).__name__}: give the path of a folder")
    if is_url(str(target)):
        raise GradshardError(f"{target} is a URL: name a folder of this machine, and send it by `gradshard store push`")
    if Path(target).is_symlink() and not Path(target).exists():
        raise GradshardError(f"{target} is a link to {Path(target).readlink()}, where nothing is: remove it")
    there = next(folder for folder in Path(target).absolute().parents if folder.exists())
    if not there.is_dir():
        raise GradshardError(f"{target} cannot be written: {there} is no folder; name another place")
    if not os.access(there, os.W_OK):
        raise GradshardError(f"{target} cannot be written: {there} does not allow it; name another folder")


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file in a cache, which is made if it is missing.

    Raises:
        GradshardError: the cache cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        held.acquire()
    except OSError as error:  # such as of a read-only disk, or a file in the folder's place
        raise GradshardError(
            f"{lock.parent} cannot be written ({error.strerror}): name another folder by cache="
        ) from error
    try:
        yield
    finally:
        held.release()
