"""Files that a folder of images holds, and the order in which they become rows.

A listing lies on disk, 32 bytes and a name for each file, and is read by number, so that memory grows with the number
of images by no more than the permutation, some 25 bytes for each while it is drawn, and the names of one class.
"""

import hashlib
import mmap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.digests import canonical_json
from gradshard.storage.ingest import walking

_RECORD = np.dtype([("offset", "<i8"), ("length", "<i4"), ("label", "<i4"), ("size", "<i8"), ("modified", "<i8")])
_NUMBER = np.dtype("<i8")
_BLOCK = 4096
_RECORDS, _NAMES = "records", "names"

Numbers = npt.NDArray[np.int64]


class Entry(NamedTuple):
    """A file: its path relative to the folder of raw images, its label, its bytes and when it was modified, in ns."""

    file: str
    label: int
    size: int
    modified: int


def class_folders(folder: Path) -> list[str]:
    """The names of the folders of classes, sorted; hidden ones are none.

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
    """The images below ``root/split``, class by class in the order of their names, and by name within a class.

    Names are compared by code points, whatever the locale. Hidden files and files with other extensions are no images;
    those that look like some are counted in ``passed_over``, by why they are none.

    Raises:
        GradshardError: a folder is none of the classes that ``labels`` numbers, a name is no text, or a link that may
            be a folder leads nowhere or back.
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
    """Entries that ``write_listing`` put on disk, read by number.

    Its files are mapped for each reading anew: pages that were read before are not held.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __len__(self) -> int:
        return self._file(_RECORDS).stat().st_size // _RECORD.itemsize

    def take(self, numbers: Numbers) -> list[Entry]:
        """The entries with these numbers."""
        if not len(numbers):
            return []
        records = self._records(numbers)
        with self._file(_NAMES).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as names:
            found = [names[r["offset"] : r["offset"] + r["length"]].decode() for r in records]
        return [
            Entry(name, int(record["label"]), int(record["size"]), int(record["modified"]))
            for name, record in zip(found, records, strict=True)
        ]

    def __iter__(self) -> Iterator[Entry]:
        for numbers in self._blocks():
            yield from self.take(numbers)

    def counts(self, classes: int) -> Numbers:
        """Count the entries of each label, int64 (classes,)."""
        counts = np.zeros(classes, dtype=np.int64)
        for numbers in self._blocks():
            counts += np.bincount(self._records(numbers)["label"], minlength=classes)
        return counts

    def _blocks(self) -> Iterator[Numbers]:
        for start in range(0, len(self), _BLOCK):
            yield np.arange(start, min(start + _BLOCK, len(self)))

    def _records(self, numbers: Numbers) -> npt.NDArray[Any]:
        records: npt.NDArray[Any] = _mapped(self._file(_RECORDS), _RECORD)[numbers]
        return records

    def _file(self, name: str) -> Path:
        return self._folder / name


def write_listing(folder: Path, entries: Iterable[Entry]) -> FileIndex:
    """Put entries on disk, in place of those that were there."""
    folder.mkdir(parents=True, exist_ok=True)
    offset = 0
    with (folder / _RECORDS).open("wb") as records, (folder / _NAMES).open("wb") as names:
        for entry in entries:
            name = entry.file.encode()
            record = np.array([(offset, len(name), entry.label, entry.size, entry.modified)], dtype=_RECORD)
            records.write(record.tobytes())
            names.write(name)
            offset += len(name)
    return FileIndex(folder)


def content_digest(entries: Iterable[Entry]) -> str:
    """The SHA-256, in hex, of the names, labels and sizes of files in order; when they were modified does not count."""
    sha256 = hashlib.sha256()
    for entry in entries:
        sha256.update(canonical_json([entry.file, entry.label, entry.size]).encode())
    return sha256.hexdigest()


def row_order(files: int, *, seed: Sequence[int], left_out: Numbers) -> Numbers:
    """Draw each row's file: a pseudo-random permutation of all files but those left out, int64 (files - left out,).

    A file that is left out gives its row to one from the end of the order and all others stay where they were, so that
    a build that meets a broken image makes only the shards of that row and of the end again.

    Args:
        files: how many there are.
        seed: of the permutation.
        left_out: the numbers of the files that become no rows.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(tuple(seed))))
    shuffled = generator.permutation(files)
    out = np.zeros(files, dtype=np.bool_)
    out[left_out] = True
    kept = files - int(out.sum())
    order, end = shuffled[:kept].copy(), shuffled[kept:]
    order[out[order]] = end[~out[end]]
    return order


def write_order(path: Path, order: Numbers) -> None:
    """Put an order on disk."""
    order.astype(_NUMBER).tofile(path)


def read_order(path: Path) -> Numbers:
    """An order from the disk, whose pages are read as they are needed."""
    order: Numbers = _mapped(path, _NUMBER)
    return order


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A file of records; an empty one cannot be mapped."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)


def _text(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise GradshardError(
            f"the file name {name.encode('utf-8', 'backslashreplace').decode()} is not UTF-8: rename it"
        ) from error
    return name
