"""Checking a store byte by byte: every digest, chunk, sign code and count."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes, manifest, sign_arrays
from gradshard.storage.formats.bitplanes import Planes
from gradshard.storage.formats.dataset import label_dtype
from gradshard.storage.formats.manifest import Manifest
from gradshard.storage.formats.shard_reader import DamagedError, Encoding, ShardReader, decode
from gradshard.storage.formats.sign_writer import content_digest, shard_content
from gradshard.storage.formats.store_files import Folder, ReadableFiles
from gradshard.storage.formats.store_paths import (
    CARD,
    DESCRIPTIONS,
    MANIFEST,
    labels_file,
    metadata_files,
    shard_files,
    shard_of,
    signs_file,
)
from gradshard.storage.maintenance.strangers import strangers
from gradshard.storage.maintenance.texts import LINE_ENDS, read_limit, with_own_line_ends

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Fault:
    """A fault of a store: the file, what is wrong with it and, within a shard, which rows are concerned.

    ``first`` and ``last`` are row numbers of the dataset, both included.
    """

    file: str
    what: str
    shard: int | None = None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class _Shard:
    """A shard's faults or, if it has none, the values from which the manifest's counts follow."""

    faults: list[Fault]
    content: str | None = None
    zeros: int = 0


def verify(files: ReadableFiles, published: Manifest, *, advance: Advance, threads: int) -> list[Fault]:
    """Check every file of a store, and everything in it, against the manifest.

    Args:
        files: the store's files, here or remote; at most ``threads`` shards are in memory at a time.
        published: the store's manifest.
        advance: called with the number of shards just checked.
        threads: how many shards are checked side by side.

    Returns:
        What is wrong, in the order of the shards; nothing if the store is intact.

    Raises:
        GradshardError: the store cannot be reached.
    """
    faults = list(_check_small_files(files, published))
    with ThreadPoolExecutor(threads) as pool:
        shards = []
        for shard in pool.map(lambda number: _check_shard(files, published, number), range(published.cut.shards)):
            shards.append(shard)
            advance(1)
    faults += [fault for shard in shards for fault in shard.faults]
    if not faults:
        faults += _check_counts(published, shards)
    return faults


def all_faults(files: ReadableFiles, published: Manifest, *, advance: Advance) -> list[Fault]:
    """Check a store as ``verify`` does, on all cores; in a local folder, also find files that are not the store's.

    Raises:
        GradshardError: the store cannot be reached.
    """
    faults = verify(files, published, advance=advance, threads=os.cpu_count() or 1)
    return faults + (stray_files(files.path, published) if isinstance(files, Folder) else [])


def stray_files(folder: Path, published: Manifest) -> list[Fault]:
    """Return the files in a store's folder that do not belong to it; litter is ignored (see ``strangers``)."""
    _, foreign = strangers(folder, published)
    return [Fault(name, "is no file of the store: remove it") for name in foreign]


def _check_small_files(files: ReadableFiles, published: Manifest) -> Iterator[Fault]:
    content = files.read(MANIFEST, manifest.SIZE_LIMIT)
    if not manifest.is_canonical(content):
        ends = content.replace(b"\r\n", b"\n") == manifest.canonical(content)
        changed = "its text was changed, though not its meaning"
        yield Fault(MANIFEST, LINE_ENDS if ends else f"is not as a writer leaves it: {changed}")
    metadata = metadata_files(published.copies)
    for name in (*metadata, CARD, *(name for name in DESCRIPTIONS if name in published.files)):
        text, fault = _read(files, published, name)
        if fault is not None:
            yield fault
        elif text is not None and name in metadata:
            try:
                sign_arrays.check_metadata(name, text, published, where="")
            except GradshardError:
                yield Fault(name, "does not describe the arrays that the manifest promises")


def _check_shard(files: ReadableFiles, published: Manifest, shard: int) -> _Shard:
    rows = published.cut.shard_rows(shard)
    faults: list[Fault] = []
    contents: dict[str, bytes | None] = {}
    for name in shard_files(shard, published.copies):
        content, fault = _read(files, published, name)
        if fault is not None:
            faults.append(Fault(name, fault.what, shard, rows.start, rows.stop - 1))
        contents[name] = content
    signs = []
    for copy in range(published.copies):
        name = signs_file(shard, copy)
        planes, damage = _decode_signs(contents[name], name, shard, published)
        signs.append(planes)
        faults += damage
    labels, damage = _decode_labels(contents[labels_file(shard)], shard, published)
    faults += damage
    if faults:
        return _Shard(_without_doubles(faults))
    zeros = sum(int(np.bitwise_count(planes[:, 1]).sum(dtype=np.int64)) for planes in signs)
    return _Shard([], shard_content(signs, labels), zeros)


def _decode_signs(content: bytes | None, name: str, shard: int, published: Manifest) -> tuple[Planes, list[Fault]]:
    """Return the packed signs in a shard's file and the faults of its chunks; no faults if the file is missing."""
    rows, chunk = published.cut.shard_rows(shard), published.layout.chunk
    planes = np.empty((rows.stop - rows.start, 2, published.row_bytes // 2), dtype=np.uint8)
    if content is None:
        return planes, []
    reader, faults = ShardReader(io.BytesIO(content), shard, Encoding(published.cut)), []
    for first in range(rows.start, rows.stop, chunk):
        stop = min(first + chunk, rows.stop)
        out = planes[first - rows.start : stop - rows.start]
        try:
            reader.read(first, stop, out)
        except DamagedError as error:
            faults.append(Fault(name, error.what, shard, error.start, error.stop - 1))
            continue
        illegal = bitplanes.illegal_rows(out, published.dataset.pixels)
        if len(illegal):
            low, high = first + int(illegal[0]), first + int(illegal[-1])
            faults.append(Fault(name, f"{len(illegal)} rows hold codes that are no signs", shard, low, high))
    return planes, faults


def _decode_labels(content: bytes | None, shard: int, published: Manifest) -> tuple[bitplanes.Labels, list[Fault]]:
    rows, name = published.cut.shard_rows(shard), labels_file(shard)
    labels = np.zeros(published.layout.shard, dtype=label_dtype(published.dataset.classes))
    count = rows.stop - rows.start
    if content is not None:
        try:
            decode(content, labels.view(np.uint8))
        except ValueError as error:
            return labels[:count], [Fault(name, f"the chunk: {error}", shard, rows.start, rows.stop - 1)]
    wrong = np.flatnonzero(labels[:count] >= published.dataset.classes)
    if len(wrong):
        low, high = rows.start + int(wrong[0]), rows.start + int(wrong[-1])
        return labels[:count], [Fault(name, f"{len(wrong)} labels are no class", shard, low, high)]
    return labels[:count], []


def _check_counts(published: Manifest, shards: list[_Shard]) -> Iterator[Fault]:
    zeros = sum(shard.zeros for shard in shards)
    if zeros != published.zeros:
        yield Fault(MANIFEST, f"says that {published.zeros} signs are 0, but {zeros} are")
    if content_digest(shard.content or "" for shard in shards) != published.content:
        yield Fault(MANIFEST, "names another content than the shards hold")


def _read(files: ReadableFiles, published: Manifest, name: str) -> tuple[bytes | None, Fault | None]:
    """Return a file's bytes, and what is wrong with them; none if there is no such file."""
    record = published.files[name]
    try:
        content = files.read(name, read_limit(name, record))
    except FileNotFoundError:
        return None, Fault(name, "is missing")
    if shard_of(name) is None and with_own_line_ends(content, record) is not None:
        return content, Fault(name, LINE_ENDS)
    if len(content) != record.size:
        seen = f"{len(content)} bytes" if len(content) < record.size else "more bytes"
        return content, Fault(name, f"has {seen} where the manifest promises {record.size}")
    if hashlib.sha256(content).hexdigest() != record.sha256:
        return content, Fault(name, "its SHA-256 is not the manifest's")
    return content, None


def _without_doubles(faults: list[Fault]) -> list[Fault]:
    """Return each fault once, and a wrong digest only for files of which no more precise fault is known."""
    faults = list(dict.fromkeys(faults))
    precise = {fault.file for fault in faults if "SHA-256" not in fault.what and "promises" not in fault.what}
    imprecise = [fault for fault in faults if fault.file not in precise]
    return imprecise + [fault for fault in faults if fault.file in precise and "SHA-256" not in fault.what]
