"""The list of the stores at a place: a file beside them, so that they are listed without reading their manifests.

The index repeats what the manifests say, and is not trusted: whoever fetches a listed store checks its manifest against
the listed digest. Where files can be listed, the index can always be made again.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_bytes
from gradshard.storage.formats.manifest import Count, Manifest, Positive, Sha256, Word, parse_manifest
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE
from gradshard.storage.maintenance.signatures import claimed_signer
from gradshard.storage.remote.causes import cause_of, is_conflict
from gradshard.storage.remote.hub_index import folder_above, hub_folders, replace_at_hub
from gradshard.storage.remote.location import Location, is_url, manifest_bytes, open_location, shown
from gradshard.storage.remote.signature import optional_signature

INDEX = "stores.json"
SIZE_LIMIT = 1 << 23

# The name of a store's folder, with nothing in it that leads elsewhere or confuses a terminal.
FolderName = Annotated[str, Field(pattern=r"^[\w@+-][\w.@+ -]{0,199}$")]

_TRIES = 20
_PAUSE_SECONDS = 0.2
_LEAST_PREFIX = 6


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Entry(_Record):
    """One store at a place; ``signer`` is the one its signature claims, unchecked, and ``size`` is in bytes."""

    name: FolderName
    model: Word
    dataset: Word
    split: Word
    rows: Positive
    size: Count
    digest: Sha256
    signer: Annotated[str, Field(pattern=r"^[\w.: ]{1,100}$")] | None = None


class Index(_Record):
    """The index file."""

    format: Literal["gradshard-stores"] = "gradshard-stores"
    version: Literal[1] = 1
    stores: tuple[Entry, ...] = Field(default=(), strict=False)

    def with_store(self, entry: Entry) -> "Index":
        """Return the index with a store added, in place of one of the same name."""
        others = [known for known in self.stores if known.name != entry.name]
        return Index(stores=tuple(sorted([*others, entry], key=lambda known: known.name)))

    def content(self) -> bytes:
        """Return the index file, byte for byte."""
        return (json.dumps(self.model_dump(mode="json"), indent=1) + "\n").encode()


@dataclass(frozen=True)
class _Parent:
    """The place that a store is at, and the name of the store's folder there."""

    location: Location
    name: str


def listed(place: str) -> list[Entry]:
    """List the stores at a place: in a folder by reading their manifests, at a URL by its index.

    Raises:
        GradshardError: there is no index, the file is not an index, or the connection failed.
    """
    location = open_location(place)
    if not is_url(place):
        return list(_found(location).stores)
    index = _read(location)
    if index is None:
        raise GradshardError(
            f"{location.url} has no list of its stores ({INDEX}): check the address, or have its owner run `gradshard "
            "store list --rebuild` there"
        )
    return list(index.stores)


def has_index(place: str) -> bool:
    """Tell whether a list of stores lies at a place.

    Raises:
        GradshardError: the connection failed.
    """
    return open_location(place).size(INDEX) is not None


def rebuild(place: str) -> list[Entry]:
    """Read all stores at a place, and write its index anew; a store without a plain name is left out, with a warning.

    Raises:
        GradshardError: nothing can be listed or written there, or the connection failed.
    """
    location = open_location(place)
    if location.protocol in ("http", "https"):
        raise GradshardError(
            f"{shown(place)}: nothing can be listed or written over HTTP: do it in the server's folder"
        )
    index = _found(location)
    _update(location, lambda known: index)
    return list(index.stores)


def register(place: str, manifest: Manifest, *, only_if_indexed: bool = False) -> None:
    """Put a store that was just pushed, or signed, into the index of the place that it lies at.

    Args:
        place: the path or URL of the store's folder.
        manifest: the store's.
        only_if_indexed: do nothing if the place has no index.

    Raises:
        GradshardError: no folder is above the store, the index cannot be written, or the connection failed.
    """
    own = open_location(place)
    parent = _parent(own)
    if parent is None or (only_if_indexed and _read(parent.location) is None):
        if only_if_indexed:
            return
        raise GradshardError(f"{own.url} is the root of its place, so no {INDEX} can lie beside it")
    entry = _entry(parent.name, manifest, optional_signature(own), where=own.url)
    _update(parent.location, lambda known: (known or Index()).with_store(entry))


def address(place: str, entry: Entry) -> str:
    """Return the path or URL of a store that was listed at a place."""
    before, mark, query = place.partition("?") if place.startswith(("http://", "https://")) else (place, "", "")
    return f"{before.rstrip('/')}/{entry.name}{mark}{query}"


def pick(place: str, wanted: str) -> Entry:
    """Find the one store at a place whose name, with or without .zarr, is ``wanted``, or whose digest begins with it.

    Raises:
        GradshardError: there is no such store, or more than one.
    """
    entries = listed(place)
    long_enough = len(wanted) >= _LEAST_PREFIX
    found = (
        [entry for entry in entries if entry.name == wanted]
        or [entry for entry in entries if entry.name == f"{wanted}.zarr"]
        or [entry for entry in entries if long_enough and entry.digest.startswith(wanted.lower())]
    )
    digests = {entry.digest for entry in found}
    if len(digests) != 1:
        there = ", ".join(f"{entry.name} ({entry.digest[:12]})" for entry in (found or entries)[:10]) or "none"
        what = "more than one store" if found else "no store"
        raise GradshardError(f"{shown(place)} has {what} of the name or digest {wanted}; there: {there}")
    return found[0]


def _entry(name: str, manifest: Manifest, signature: bytes | None, *, where: str) -> Entry:
    try:
        return Entry(
            name=name,
            model=manifest.model.name,
            dataset=manifest.dataset.name,
            split=manifest.dataset.split,
            rows=manifest.dataset.rows,
            size=manifest.size,
            digest=manifest.digest,
            signer=claimed_signer(signature),
        )
    except ValidationError as error:
        raise GradshardError(
            f"{where}: a list of stores holds only plain names, of letters, digits and . _ - + @"
        ) from error


def _found(location: Location) -> Index:
    """Look for stores one folder below a location."""
    return Index(stores=tuple(sorted(_entries(location), key=lambda entry: entry.name)))


def _entries(location: Location) -> Iterable[Entry]:
    for below in _folders(location):
        name = below.url.rpartition("/")[2]
        try:
            content = manifest_bytes(below)
        except OSError as error:
            _leave_out(location, name, _unreadable(MANIFEST, error))
            continue
        except GradshardError:
            if below.size(MANIFEST) is not None:
                raise
            continue
        try:
            manifest = parse_manifest(content, where=below.url)
        except GradshardError:
            _leave_out(location, name, "it holds a manifest.json that is none of a store, or of a newer gradshard")
            continue
        try:
            signature = optional_signature(below)
        except OSError as error:
            _leave_out(location, name, _unreadable(SIGNATURE, error))
            continue
        try:
            entry = _entry(name, manifest, signature, where=below.url)
        except GradshardError:
            _leave_out(location, name, "a list of stores holds only plain names: rename it")
            continue
        yield entry


def _unreadable(file: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "it cannot be read: change its permissions"
    return f"its {file} is no file that can be read ({error.strerror}): remove it"


def _leave_out(location: Location, name: str, why: str) -> None:
    """Warn of a folder that must not hide the other stores; its name may hold anything, also escape sequences."""
    logging.getLogger("gradshard").warning("%s: the folder %a is left out of the list: %s", location.url, name, why)


def _folders(location: Location) -> list[Location]:
    if location.protocol == "hf":
        return [open_location(f"{location.url}/{name}") for name in hub_folders(location)]
    try:
        location.fs.invalidate_cache()
        found = location.fs.ls(location.root, detail=True)
    except FileNotFoundError as error:
        raise GradshardError(f"{location.url} is not there: check the address") from error
    except Exception as error:
        raise cause_of(error).error(location.url) from error
    roots = sorted(str(entry["name"]).rstrip("/") for entry in found if _is_folder(location, entry))
    return [Location(f"{location.url}/{root.rpartition('/')[2]}", location.fs, root) for root in roots]


def _is_folder(location: Location, entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry of a listing is a folder, or on this machine a link to one."""
    return entry["type"] == "directory" or (location.folder is not None and Path(entry["name"]).is_dir())


def _parent(location: Location) -> _Parent | None:
    if location.protocol == "hf":
        found = folder_above(location)
        return None if found is None else _Parent(open_location(found[0]), found[1])
    root = str(Path(location.root).resolve()) if location.protocol == "file" else location.root
    above, slash, name = root.rpartition("/")
    if not slash or not name or not above:
        return None
    return _Parent(Location(url=location.url.rpartition("/")[0] or above, fs=location.fs, root=above), name)


def _read(location: Location) -> Index | None:
    """Read the index of a location, if it has one.

    Raises:
        GradshardError: a file of that name is no index, or the connection failed.
    """
    try:
        content = location.read(INDEX, SIZE_LIMIT + 1)
    except FileNotFoundError:
        return None
    try:
        if len(content) > SIZE_LIMIT:
            raise ValueError("too long")
        return Index.model_validate_json(content)
    except ValueError as error:  # pydantic's among them
        raise GradshardError(
            f"{location.url}/{INDEX} is no list of stores that this gradshard reads: remove it, then run `gradshard "
            "store list --rebuild`"
        ) from error


def _update(location: Location, change: Callable[[Index | None], Index]) -> None:
    """Replace the index by what ``change`` makes of it.

    On disks, S3 and the hub no update is lost, because of a lock, or because a write is refused if the file changed
    since it was read. Elsewhere one of two simultaneous updates may be lost; this is checked once after writing.
    """
    if location.protocol == "file":
        path = Path(location.root) / INDEX
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{INDEX}.lock")):
            write_bytes(path, change(_read(location)).content())
        return
    for attempt in range(_TRIES):
        if _replaced(location, change):
            return
        time.sleep(_PAUSE_SECONDS * (attempt + 1))
    raise GradshardError(f"{location.url}/{INDEX} is written by others all the time: run the same again later")


def _replaced(location: Location, change: Callable[[Index | None], Index]) -> bool:
    """Try once to write the index; return false if another process wrote it in between."""
    if location.protocol in ("s3", "s3a"):
        condition = _condition(location)
        try:
            # Reading is refused too, if the file is replaced while it is read.
            content = change(_read(location)).content()
            location.fs.pipe_file(f"{location.root}/{INDEX}", content, **condition)
        except Exception as error:
            if is_conflict(error):
                return False
            if isinstance(error, GradshardError):
                raise
            raise cause_of(error).error(f"{location.url}/{INDEX}") from error
        return True
    if location.protocol == "hf":
        return replace_at_hub(location, INDEX, lambda: change(_read(location)).content())
    wanted = change(_read(location))
    location.write(INDEX, wanted.content())
    there = _read(location)
    return there is not None and set(wanted.stores) <= set(there.stores)


def _condition(location: Location) -> dict[str, str]:
    """Return the condition of a write to S3, as it is before the file is read."""
    location.fs.invalidate_cache()
    try:
        return {"IfMatch": location.fs.info(f"{location.root}/{INDEX}")["ETag"]}
    except FileNotFoundError:
        return {"IfNoneMatch": "*"}
    except Exception as error:
        raise cause_of(error).error(f"{location.url}/{INDEX}") from error
