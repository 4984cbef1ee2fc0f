"""Transfers of stores: the contents of folders, progress, and interruptions."""

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
    """Fail because another process is waited for."""
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
    """An interruption by the user."""


def stop_after(calls: int) -> Callable[[int], None]:
    """Return a progress function that interrupts at the given call."""
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
    """Make drivers read the environment again, which they do only once, and open new connections."""
    for protocol, library in _DRIVERS.items():
        if library in sys.modules:
            fsspec.get_filesystem_class(protocol).clear_instance_cache()


def one_sentence(code, err):
    """Check that the command line failed with one line and no traceback, and return it."""
    assert code == 2, err
    assert err.startswith("gradshard: "), err
    assert err.count("\n") == 1, err
    return err
