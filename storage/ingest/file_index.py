"""The files in a folder of images, listed on disk.

An index takes about 60 bytes per file and is read by number, so that memory depends not on the number of images, but on
the names of one class.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.digests import canonical_json
from gradshard.storage.ingest import walking
from gradshard.storage.ingest.row_order import Numbers

_SCHEMA = pa.schema([("file", pa.string()), ("label", pa.int32()), ("size", pa.int64()), ("modified", pa.int64())])
# Entries that are written, and mapped, at once.
_BATCH = 4096


class Entry(NamedTuple):
    """A file: its path relative to the folder of raw images, its label, size and time of modification in ns."""

    file: str
    label: int
    size: int
    modified: int


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders, sorted, without hidden ones.

    Raises:
        GradshardError: there is no such folder, it holds no folder, or a link in it leads nowhere.
    """
    if not folder.is_dir():
        raise GradshardError(
            f"no folder {folder}: an image folder has train/CLASS/*.jpg and val/CLASS/*.jpg; see docs/datasets.md"
        )
    names = walking.subfolders(folder)
    if not names:
        raise GradshardError(f"{folder} holds no folders: it must have one for each class; see docs/datasets.md")
    return names


def scan(root: Path, split: str, labels: Mapping[str, int], passed_over: Counter[str] | None = None) -> Iterator[Entry]:
    """Yield the images below ``root/split``, class by class in the order of their names, by name within a class.

    Names are compared by code points, whatever the locale. Hidden files and files with other extensions are not
    images; those that look like images are counted in ``passed_over`` by reason.

    Raises:
        GradshardError: a folder is not a class in ``labels``, a name is not valid text, or a link that may be to a
            folder is dead or circular.
    """
    if passed_over is not None and (loose := walking.loose_images(root / split)):
        passed_over["in no folder of a class"] += loose
    for name in class_folders(root / split):
        if name not in labels:
            raise GradshardError(
                f"{root / split / name}: there is no class {name} in the training images, so it has no label: remove "
                "the folder, or name all classes in dataset.class_names"
            )
        for file in sorted(walking.images(root, Path(split, name).as_posix(), passed_over)):
            stat = walking.stat_image(root / file)
            yield Entry(_text(file), labels[name], stat.st_size, stat.st_mtime_ns)


class FileIndex:
    """Entries that ``write_index`` wrote to disk, read by number.

    The file is mapped anew for each read, so that pages read before are not kept in memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        with self._opened() as index:
            last = index.num_record_batches - 1
            return last * _BATCH + index.get_batch(last).num_rows if last >= 0 else 0

    def take(self, numbers: Numbers) -> list[Entry]:
        """Return the entries with these numbers."""
        with self._opened() as index:
            return _entries(index.read_all().take(pa.array(numbers)))

    def __iter__(self) -> Iterator[Entry]:
        for batch in self._batches():
            yield from _entries(batch)

    def counts(self, classes: int) -> Numbers:
        """Count the entries of each label, int64 (classes,)."""
        counts = np.zeros(classes, dtype=np.int64)
        for batch in self._batches():
            counts += np.bincount(batch.column("label"), minlength=classes)
        return counts

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with self._opened() as index:
            for number in range(index.num_record_batches):
                yield index.get_batch(number)

    @contextmanager
    def _opened(self) -> Iterator[pa.RecordBatchFileReader]:
        with pa.memory_map(str(self._path)) as file, pa.ipc.open_file(file) as index:
            yield index


def write_index(path: Path, entries: Iterable[Entry]) -> FileIndex:
    """Write entries to an Arrow IPC file, replacing those that were there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, pa.ipc.new_file(file, _SCHEMA) as index:
        remaining = iter(entries)
        while rows := list(islice(remaining, _BATCH)):
            columns = zip(*rows, strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, _SCHEMA.types, strict=True)]
            index.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
    return FileIndex(path)


def _entries(rows: pa.RecordBatch | pa.Table) -> list[Entry]:
    return [Entry(*row) for row in zip(*(column.to_pylist() for column in rows.columns), strict=True)]


def content_digest(entries: Iterable[Entry]) -> str:
    """Return the SHA-256, in hex, of files' names, labels and sizes in order, without times."""
    sha256 = hashlib.sha256()
    for entry in entries:
        sha256.update(canonical_json([entry.file, entry.label, entry.size]).encode())
    return sha256.hexdigest()


def _text(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise GradshardError(
            f"the file name {name.encode('utf-8', 'backslashreplace').decode()} is not UTF-8: rename it"
        ) from error
    return name
