"""Reading a store in place: whole files are fetched when they are first needed, and kept in a bounded folder.

Whole shards are fetched so that any server will do, with ranges or without; each is checked against the manifest before
it is used.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gradshard.storage.errors import AlteredError
from gradshard.storage.formats.atomic import atomic_path
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.manifest import FileRecord, Manifest
from gradshard.storage.formats.sign_reader import SignStore, open_files, open_store
from gradshard.storage.remote.bounded_folder import BoundedFolder
from gradshard.storage.remote.location import Location, is_url, open_location, remote_manifest


@dataclass(frozen=True)
class CachedFiles:
    """The files of a remote store; those that were read are kept on this machine."""

    location: Location
    manifest: Manifest
    folder: BoundedFolder

    def read(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a file, at most."""
        with self.open(name) as file:
            return file.read(limit)

    def open(self, name: str) -> BinaryIO:
        """Return a file, fetched and checked if it is not here yet.

        Raises:
            FileNotFoundError: the store has no such file.
            GradshardError: the connection failed, or what came is not what the manifest promises.
        """
        record = self.manifest.files[name]
        return self.folder.open(
            name,
            record.size,
            fetch=lambda path: fetch(self.location, name, record, path),
            intact=lambda path: file_sha256(path) == record.sha256,
        )


def fetch(location: Location, name: str, record: FileRecord, target: Path) -> None:
    """Fetch one file of a store to ``target``, which appears once it is what the manifest promises.

    Raises:
        FileNotFoundError: the store has no such file.
        GradshardError: the connection failed, or the file is not the manifest's.
    """
    with atomic_path(target) as temporary:
        with temporary.open("w+b") as file:
            location.fetch(name, file, size=record.size)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != record.sha256:
            raise AlteredError(
                f"{location.url}/{name} is not the file of the manifest (SHA-256 {found[:12]}, promised "
                f"{record.sha256[:12]}): the store there is damaged; tell its owner to verify it"
            )


def open_place(place: str, cache: Path, limit: int) -> SignStore:
    """Open the store at a path or URL.

    Raises:
        GradshardError: there is none, it is not valid, or the connection failed.
    """
    return open_remote(place, cache, limit=limit) if is_url(place) else open_store(Path(place))


def open_remote(url: str, cache: Path, *, limit: int) -> SignStore:
    """Open the store at a URL, with a folder of its own in ``cache`` of at most ``limit`` bytes.

    Raises:
        GradshardError: nothing published is there, it is not valid, or the connection failed.
    """
    location = open_location(url)
    manifest = remote_manifest(location)
    files = CachedFiles(location, manifest, BoundedFolder(cache / manifest.digest[:16], limit))
    return open_files(files, manifest, where=location.url, remote=True)
