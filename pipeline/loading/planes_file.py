"""The packed signs of a whole store in one plain file, from which all processes read single rows in any order.

A store's chunk is decoded as a whole, which suits a reader of consecutive rows, but not one of single rows. The file
takes two bits per pixel, is made once for a store's content, and may be deleted at any time.
"""

import errno
import math
import os
from pathlib import Path

import numpy as np

from gradshard.pipeline.loading.places import locked
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import atomic_path
from gradshard.storage.formats.bitplanes import Planes
from gradshard.storage.formats.sign_reader import SignStore


def planes_file(store: SignStore, cache: Path) -> Path:
    """Return the file of a store's packed signs, made and checked against the manifest if it is missing or incomplete.

    Raises:
        GradshardError: a shard is missing, damaged or not the one that was published, the disk is full, or the cache
            cannot be written.
    """
    copy = f"-{store.copy}" if store.copy else ""
    path = cache / f"planes-{store.manifest.content}{copy}.bin"
    if _is_whole(path, store):  # it appears whole, so it may be one that others share and that cannot be written
        return path
    with locked(path.with_suffix(".lock")):
        if not _is_whole(path, store):
            for left_by_a_kill in cache.glob(f".{path.name}.*.tmp"):
                left_by_a_kill.unlink()
            with atomic_path(path) as temporary:
                _allocate(temporary, math.prod(_shape(store)), path)
                planes = np.memmap(temporary, dtype=np.uint8, mode="r+", shape=_shape(store))
                store.load_into(planes)
                planes.flush()
    return path


def _is_whole(path: Path, store: SignStore) -> bool:
    return path.exists() and path.stat().st_size == math.prod(_shape(store))


def open_planes(path: Path, rows: int) -> Planes:
    """Open a file that ``planes_file`` made: uint8 (rows, 2, ceil(P / 8)), read from the disk row by row.

    Raises:
        GradshardError: the file was removed or changed.
    """
    try:
        planes: Planes = np.memmap(path, dtype=np.uint8, mode="r").reshape(rows, 2, -1)
    except (FileNotFoundError, ValueError) as error:
        raise GradshardError(f"{path} was removed or changed while it was read: make the dataset again") from error
    return planes


def _allocate(temporary: Path, size: int, path: Path) -> None:
    """Reserve the space on the disk now: writing a mapped page to a full disk would kill the process silently."""
    with temporary.open("r+b") as file:
        file.truncate(size)
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise GradshardError(
                    f"no space left on the disk for {path}, which takes {size:,} bytes: free some, or name a folder on "
                    "another disk by cache="
                ) from error
            # Some file systems cannot reserve space.
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise


def _shape(store: SignStore) -> tuple[int, int, int]:
    return len(store), 2, store.manifest.row_bytes // 2
