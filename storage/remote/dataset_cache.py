"""Reading a dataset in place: whole files are fetched when they are first needed, and kept in a bounded folder.

A dataset has no manifest. Its chunks have checksums, which are checked whenever rows are read; its splits have digests,
which are checked when all rows are loaded.
"""

import hashlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import dataset
from gradshard.storage.formats.atomic import atomic_path
from gradshard.storage.formats.dataset import Dataset
from gradshard.storage.remote.bounded_folder import BoundedFolder
from gradshard.storage.remote.location import Location, is_url, open_location


@dataclass(frozen=True)
class CachedDatasetFiles:
    """The files of a remote dataset; those that were read are kept on this machine."""

    location: Location
    folder: BoundedFolder
    _sizes: dict[str, int | None] = field(default_factory=dict, repr=False, compare=False)

    def read(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a file, at most."""
        with self.open(name) as file:
            return file.read(limit)

    def open(self, name: str) -> BinaryIO:
        """Return a file, fetched if it is not here yet.

        Raises:
            FileNotFoundError: the dataset has no such file.
            GradshardError: the connection failed, or the file is larger than the folder may be.
        """
        if name not in self._sizes:
            self._sizes[name] = self._size(name)
        size = self._sizes[name]
        return self.folder.open(name, size, fetch=partial(self._fetch, name, size))

    def _size(self, name: str) -> int | None:
        """Return the size of a file; none if the server does not tell it, as some that send it in pieces do not."""
        size = self.location.told_size(name)
        if size is not None and size > self.folder.limit:
            raise self._too_large(name, f"{size}")
        return size

    def _fetch(self, name: str, size: int | None, target: Path) -> None:
        limit = self.folder.limit
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            if size is not None:
                self.location.fetch(name, file, size=size)
            elif self.location.copy(name, file, limit + 1) > limit:
                raise self._too_large(name, f"more than {limit}")

    def _too_large(self, name: str, size: str) -> GradshardError:
        return GradshardError(
            f"{self.location.url}/{name} has {size} bytes, but the cache may have {self.folder.limit}: allow more"
        )


def open_dataset(place: str, cache: Path, limit: int) -> Dataset:
    """Open the dataset at a path or URL; only the metadata of a remote one are read now.

    Args:
        place: a path or URL.
        cache: the folder in which each remote dataset has a folder for the files that are read.
        limit: the most bytes kept there of one dataset.

    Raises:
        GradshardError: there is none, it is not valid, or the connection failed.
    """
    if not is_url(place):
        return dataset.open_dataset(Path(place))
    location = open_location(place)
    metadata = dataset.read_metadata(location)
    if not metadata:
        raise GradshardError(f"no dataset at {location.url} (it has no zarr.json): check the address")
    digest = hashlib.sha256()
    for name in sorted(metadata):
        digest.update(name.encode() + hashlib.sha256(metadata[name]).digest())
    files = CachedDatasetFiles(location, BoundedFolder(cache / digest.hexdigest()[:16], limit))
    return dataset.open_files(files, metadata, where=location.url, remote=True)
