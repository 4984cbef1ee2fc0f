"""A place that holds the files of one sign store: a folder of this machine, or a URL that fsspec has a driver for."""

import posixpath
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from gradshard.storage.errors import AlteredError, GradshardError
from gradshard.storage.formats.atomic import copy, remove_unfinished, write_bytes
from gradshard.storage.formats.manifest import SIZE_LIMIT, Manifest, parse_manifest, read_manifest
from gradshard.storage.formats.store_files import Folder, ReadableFiles
from gradshard.storage.formats.store_paths import MANIFEST
from gradshard.storage.home import path_of
from gradshard.storage.maintenance.strangers import is_litter
from gradshard.storage.optional import remedy
from gradshard.storage.remote.causes import ConnectionBrokenError, cause_of, is_missing
from gradshard.storage.remote.google import send_to_google
from gradshard.storage.remote.hub import commit_file, hub_file_system
from gradshard.storage.remote.retries import patiently
from gradshard.storage.remote.web import web_options

_BLOCK = 1 << 20
_WEB = ("http", "https")
_HERE = ("file", "local")
_GOOGLE = ("gs", "gcs")
# Their drivers try again by themselves, for some seconds.
_PATIENT = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
_DRIVERS = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
    "ssh": "sshfs",
    "sftp": "sshfs",
}
# Options for reading a file once from a server that may not support ranges. The hub limits requests: given any size,
# the driver does not request it first.
_STREAMED = {"http": {"block_size": 0}, "https": {"block_size": 0}, "hf": {"block_size": 0, "size": 1}}
# These write in place, so a half-written file of an interrupted push could be taken for a whole one: a file is written
# under another name and renamed. On object stores an upload appears whole or not at all.
_WRITES_IN_PLACE = {"ssh", "sftp", "ftp", "smb"}

# The suffix of a file in such a place until it is whole.
UNFINISHED = ".part"

Result = TypeVar("Result")


def is_url(place: str) -> bool:
    """Tell whether a place is a URL and not a path."""
    return "://" in place


def shown(place: str) -> str:
    """Return a path or URL for messages: without what follows the ``?`` of a web address, such as a token."""
    return place.partition("?")[0] if place.partition("://")[0] in _WEB else place


@dataclass(frozen=True)
class Location:
    """The folder of a store, here or remote. Every failure of the connection is a ``GradshardError`` in one sentence.

    After temporary failures a step is tried again a few times. ``query`` follows each file's path in the address of a
    web server, such as a token; it is kept out of ``url``, which is shown.
    """

    url: str
    fs: Any
    root: str
    query: str = ""

    def read(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a file, at most.

        Raises:
            FileNotFoundError: there is no such file.
            GradshardError: the connection failed.
        """
        return self._patiently(lambda: self._read(name, limit))

    def fetch(self, name: str, target: BinaryIO, *, size: int) -> None:
        """Copy a file of ``size`` bytes into an open one; at most one byte more than that is read.

        Raises:
            FileNotFoundError: there is no such file.
            AlteredError: the file is longer or shorter at its source.
            GradshardError: the connection failed, or gave more or less than the file.
        """

        patiently(lambda: self._fetch(name, target, size))

    def copy(self, name: str, target: BinaryIO, limit: int) -> int:
        """Copy the first ``limit`` bytes of a file, at most, into an open one, and return their number.

        Raises:
            FileNotFoundError: there is no such file.
            GradshardError: the connection failed.
        """
        return patiently(lambda: self._copy(name, target, limit))

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; none if it is missing, or if the server does not tell its size."""
        try:
            return self.told_size(name)
        except FileNotFoundError:
            return None

    def told_size(self, name: str) -> int | None:
        """Return the size of a file in bytes; none if the server does not tell it.

        Raises:
            FileNotFoundError: there is no such file.
            GradshardError: the connection failed.
        """
        return self._patiently(lambda: self._told_size(name))

    def is_empty(self, *, but_for: Collection[str]) -> bool:
        """Tell whether nothing is there but litter, and files whose names match the patterns ``but_for``."""
        return self._patiently(lambda: self._run("", lambda: self._is_empty(but_for)))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, so that it is there whole or not at all."""
        if self.folder is not None:
            write_bytes(self.folder / name, content)
            return
        if self.protocol == "hf":
            self.attempt(lambda: commit_file(self.url, name, content, message=f"Write {name}"))
            return
        self._put(name, lambda path: self.fs.pipe_file(path, content))

    def send(self, source: Path, name: str) -> None:
        """Copy a file of this machine, so that it is there whole or not at all."""
        if self.folder is not None:
            copy(source, self.folder / name)
        elif self.protocol in _GOOGLE:
            self._put(name, lambda path: send_to_google(self.fs, source, path))
        else:
            self._put(name, lambda path: self.fs.put_file(str(source), path))

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._run(name, lambda: self.fs.rm_file(self._path(name)))

    def remove_leftovers(self, name: str) -> None:
        """Remove a file if it is there and, in a folder of this machine, the unfinished files of killed processes."""
        if self.size(name) is not None:
            with suppress(FileNotFoundError):  # another process removed it
                self.remove(name)
        if self.folder is not None:
            remove_unfinished(self.folder)

    def attempt(self, step: Callable[[], Result]) -> Result:
        """Run a step that makes a request to the server, several times if its failure may be temporary.

        Raises:
            GradshardError: the step failed.
        """
        return self._patiently(lambda: self._run("", step))

    @property
    def protocol(self) -> str:
        """The URL's scheme."""
        return self.url.partition("://")[0] if is_url(self.url) else "file"

    @property
    def folder(self) -> Path | None:
        """The folder's path, if it is on this machine."""
        return Path(self.root) if self.protocol in _HERE else None

    def _read(self, name: str, limit: int) -> bytes:
        with self._open(name) as file, self._failing(name):
            pieces, left = [], limit
            while left and (piece := file.read(min(_BLOCK, left))):
                pieces.append(piece)
                left -= len(piece)
        return b"".join(pieces)

    def _told_size(self, name: str) -> int | None:
        found = self._run(name, lambda: self.fs.info(self._path(name)))["size"]
        return None if found is None else int(found)

    def _copy(self, name: str, target: BinaryIO, limit: int) -> int:
        target.seek(0)
        target.truncate()
        done = 0
        with self._open(name) as file:
            while done < limit:
                with self._failing(name):
                    piece = file.read(min(_BLOCK, limit - done))
                if not piece:
                    break
                target.write(piece)
                done += len(piece)
        return done

    def _fetch(self, name: str, target: BinaryIO, size: int) -> None:
        done = self._copy(name, target, size + 1)
        if done != size:
            own = self._told_size(name)
            if own is not None and min(own, size + 1) == done:
                raise AlteredError(
                    f"{self.url}/{name} has {own} bytes, not the {size} promised: what lies there is damaged; tell its "
                    "owner to verify it"
                )
            seen = f"only {done}" if done < size else "more"
            raise ConnectionBrokenError(
                f"{self.url}/{name} should have {size} bytes but gave {seen}: run the same again"
            )

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file, to be read once from its start; the server need not support ranges."""
        options = _STREAMED.get(self.protocol, {})
        file = self._run(name, lambda: self.fs.open(self._path(name), "rb", **options))
        try:
            yield file
        finally:
            file.close()

    def _is_empty(self, but_for: Collection[str]) -> bool:
        try:
            found = [str(path).rstrip("/").rpartition("/")[2] for path in self.fs.ls(self.root, detail=False)]
            return all(is_litter(name) or any(fnmatchcase(name, pattern) for pattern in but_for) for name in found)
        except FileNotFoundError:
            return True
        finally:
            self.fs.invalidate_cache()

    def _put(self, name: str, put: Callable[[str], object]) -> None:
        try:
            self._patiently(lambda: self._run(name, lambda: self._put_once(self._path(name), put)))
        except FileNotFoundError as error:  # such as a bucket that does not exist
            raise GradshardError(f"{self.url}: {error}: create it first, or check the address") from error

    def _put_once(self, path: str, put: Callable[[str], object]) -> None:
        if self.protocol not in _WRITES_IN_PLACE:
            put(path)
            return
        self.fs.makedirs(posixpath.dirname(path), exist_ok=True)
        put(f"{path}{UNFINISHED}")
        if self.fs.exists(path):
            self.fs.rm_file(path)
        self.fs.mv(f"{path}{UNFINISHED}", path)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}{self.query}" if name else self.root

    def _patiently(self, step: Callable[[], Result]) -> Result:
        return step() if self.protocol in _PATIENT else patiently(step)

    def _run(self, name: str, step: Callable[[], Result]) -> Result:
        with self._failing(name):
            return step()

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        try:
            yield
        except GradshardError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and is_missing(error, protocol=self.protocol):
                raise
            if isinstance(error, OSError) and self.protocol in _HERE:
                raise  # such as a full disk: no connection is involved
            raise cause_of(error).error(f"{self.url}{'/' if name else ''}{name}") from error


def open_location(place: str) -> Location:
    """Return a location from a path or a URL.

    Raises:
        GradshardError: there is no driver for the URL or no connection, or the path is in the home folder of nobody.
    """
    if not is_url(place):
        path = path_of(place).absolute().as_posix()
        return Location(url=place.rstrip("/"), fs=LocalFileSystem(), root=path)
    protocol = place.partition("://")[0]
    address, mark, query = place.partition("?") if protocol in _WEB else (place, "", "")
    try:
        fs, root = hub_file_system(address) if protocol == "hf" else url_to_fs(address, **_options(protocol))
    except ImportError as error:
        advice = remedy(_DRIVERS[protocol]) if protocol in _DRIVERS else str(error)
        raise GradshardError(f"{shown(place)}: a library for {protocol}:// is not installed: {advice}") from error
    except ValueError as error:
        raise GradshardError(f"{shown(place)}: {error}") from error
    except Exception as error:
        raise GradshardError(f"{shown(place)}: no connection ({error or type(error).__name__})") from error
    return Location(url=address.rstrip("/"), fs=fs, root=str(root).rstrip("/"), query=f"{mark}{query}")


def _options(protocol: str) -> dict[str, Any]:
    if protocol in ("ssh", "sftp"):
        # By default the driver accepts any host; this makes it check the user's known_hosts.
        return {"known_hosts": ()}
    return web_options() if protocol in _WEB else {}


def files_at(place: str) -> tuple[ReadableFiles, Manifest]:
    """Return the files and the manifest of a store at a path or a URL; no other file is read.

    Raises:
        GradshardError: there is none, it is not valid, or the connection failed.
    """
    if not is_url(place):
        return Folder(Path(place)), read_manifest(Path(place))
    location = open_location(place)
    return location, remote_manifest(location)


def manifest_at(place: str) -> Manifest:
    """Return the manifest of a store at a path or a URL; nothing else is read.

    Raises:
        GradshardError: there is none, it is not valid, or the connection failed.
    """
    return files_at(place)[1]


def remote_manifest(location: Location) -> Manifest:
    """Return the manifest of a store at a location.

    Raises:
        GradshardError: there is none, it is not valid, or the connection failed.
    """
    return parse_manifest(manifest_bytes(location), where=location.url)


def manifest_bytes(location: Location) -> bytes:
    """Return the bytes of the manifest at a location, unchecked.

    Raises:
        GradshardError: there is none, or the connection failed.
    """
    try:
        return location.read(MANIFEST, SIZE_LIMIT + 1)
    except FileNotFoundError as error:
        raise GradshardError(
            f"no published sign store at {location.url} (it has no {MANIFEST}): check the address; a push that was "
            "interrupted is finished by running it again"
        ) from error
