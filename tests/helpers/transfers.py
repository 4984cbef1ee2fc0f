"""Stores that are moved: what is in their folders, and what is told of it."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec

from gradshard.storage.remote.transfer import pull, push


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forbidden(text: str) -> None:
    """Fail where another process is waited for and none should be."""
    raise AssertionError(f"waited for process {text}")


def pulled(place, target, digest=None):
    seen = []
    pull(place, target, digest=digest, on_wait=forbidden, advance=seen.append)
    return seen


def pushed(store, place):
    seen = []
    push(store, place, advance=seen.append)
    return seen


class StoppedError(Exception):
    """Somebody pressed a key."""


def stop_after(calls: int) -> Callable[[int], None]:
    """Tell of progress, and stop at the given call."""
    counter = itertools.count(1)

    def advance(done: int) -> None:
        if next(counter) == calls:
            raise StoppedError

    return advance


def change_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([*content[:-1], content[-1] ^ 1]))


_DRIVERS = {"http": "aiohttp", "s3": "s3fs", "ssh": "sshfs", "gs": "gcsfs", "az": "adlfs"}


def clear_drivers() -> None:
    """Have drivers look at the environment again, which they do but once, and make new connections."""
    for protocol, library in _DRIVERS.items():
        if library in sys.modules:
            fsspec.get_filesystem_class(protocol).clear_instance_cache()


def one_sentence(code, err):
    """Return what the command line complained about, which is one line and no traceback."""
    assert code == 2, err
    assert err.startswith("gradshard: "), err
    assert err.count("\n") == 1, err
    return err
