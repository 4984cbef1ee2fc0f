"""The hashes of a dataset's rows, 32 bytes each, which show not only that a dataset differs, but where.

A dataset's digest is computed from its row hashes in order. So a file of hashes, wherever it came from, is checked
against the digest in a sign store before it is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradshard.pipeline.gradients.packed import pieces
from gradshard.pipeline.loading.rows import Rows, read_pieces
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import chunking
from gradshard.storage.formats.atomic import write_bytes
from gradshard.storage.formats.chunking import split_slice
from gradshard.storage.formats.dataset import Split
from gradshard.storage.formats.digests import RowsDigest, row_hashes
from gradshard.storage.formats.manifest import DatasetRecord

# Called with the numbers of rows done and of all rows.
OnRows = Callable[[int, int], None]

_BYTES = 32
# Rows of a sample check: enough that a shuffled or shifted dataset cannot pass.
SAMPLE = 64


@dataclass(frozen=True)
class RowHashes:
    """The hashes of all rows, and the shape of an image, which the digest covers too."""

    hashes: bytes
    sample_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.hashes) // _BYTES

    def digest(self, classes: int) -> str:
        """Return the digest of the dataset, as ``prepare`` computes it."""
        digest = RowsDigest(sample_shape=self.sample_shape, classes=classes)
        digest.update_hashed(self.hashes)
        return digest.hexdigest()

    def of(self, row: int) -> bytes:
        """Return one row's hash."""
        return self.hashes[row * _BYTES : (row + 1) * _BYTES]

    def first_change(self, rows: slice, again: bytes) -> int | None:
        """Find the first of some rows whose hash, taken ``again``, differs from the one here; None if none does."""
        if again == self.hashes[rows.start * _BYTES : rows.stop * _BYTES]:
            return None
        if len(again) != (rows.stop - rows.start) * _BYTES:
            return int(rows.start)
        parts = (again[start : start + _BYTES] for start in range(0, (rows.stop - rows.start) * _BYTES, _BYTES))
        return next(row for row, part in zip(range(rows.start, rows.stop), parts, strict=True) if part != self.of(row))

    def find(self, wanted: bytes) -> int | None:
        """Find the first row with a hash; None if there is none."""
        table = np.frombuffer(self.hashes, dtype=f"V{_BYTES}")
        places = np.flatnonzero(table == np.frombuffer(wanted, dtype=f"V{_BYTES}"))
        return int(places[0]) if len(places) else None

    def first_difference(self, other: "RowHashes") -> int | None:
        """Find the first row in which two datasets differ; None if they do not."""
        length = min(len(self), len(other))
        ours, theirs = (np.frombuffer(part.hashes, dtype=f"V{_BYTES}")[:length] for part in (self, other))
        wrong = np.flatnonzero(ours != theirs)
        return int(wrong[0]) if len(wrong) else None


def row_pieces(rows: slice, *, total: int, sample_shape: tuple[int, int, int], at_once: int = 1) -> list[slice]:
    """Cut some of ``total`` rows into pieces to read at once, as ``precompute`` does: a store's bytes depend on it."""
    pixels = int(np.prod(sample_shape))
    return list(pieces(rows, pixels=pixels, chunk=chunking.plan(total, pixels).chunk, at_once=at_once))


def hash_rows(rows: Rows, *, workers: int = 0, on_rows: OnRows | None = None) -> RowHashes:
    """Read a whole dataset once, and return its hashes.

    Raises:
        GradshardError: no store can be made of a row, or a row has another shape than the first.
    """
    first, _ = rows.read(0)
    shape = (first.shape[0], first.shape[1], first.shape[2])
    parts = []
    cut = row_pieces(slice(0, len(rows)), total=len(rows), sample_shape=shape)
    for piece, images, labels in read_pieces(rows, cut, workers=workers):
        if images.shape[1:] != shape:
            raise GradshardError(
                f"row {piece.start} of the dataset is an image of {images.shape[1:]} and row 0 one of {shape} "
                "(C, H, W): bring all images to one size by transform="
            )
        parts.append(row_hashes(images, labels))
        if on_rows is not None:
            on_rows(piece.stop, len(rows))
    return RowHashes(b"".join(parts), shape)


def hash_split(split: Split) -> RowHashes:
    """Return the hashes of a prepared dataset's split."""
    cut = split_slice(slice(0, len(split)), split.chunk)
    parts = [row_hashes(split.read_images(p.start, p.stop), split.read_labels(p.start, p.stop)) for p in cut]
    return RowHashes(b"".join(parts), split.sample_shape)


def sample_rows(count: int) -> list[int]:
    """Return evenly spread rows, including the first and the last; always the same ones for a count."""
    return [int(row) for row in np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64))]


def hash_sample(rows: Rows, numbers: Sequence[int]) -> list[bytes]:
    """Read some rows twice, and return their hashes.

    Raises:
        GradshardError: a row differs the second time.
    """
    found = []
    for number in numbers:
        once, again = (_hash(rows, number) for _ in range(2))
        if once != again:
            raise changing(number)
        found.append(once)
    return found


def _hash(rows: Rows, number: int) -> bytes:
    images, labels = rows.read_many([number])
    return row_hashes(images, labels)


def changing(row: int) -> GradshardError:
    """Return the error that a row differed the second time it was read."""
    return GradshardError(
        f"row {row} of the dataset gives other pixels or another label the second time it is read: a random transform "
        "is left in; take it out, and crop and flip images together with their signs (SignedDataset(augment=...))"
    )


def load_hashes(cache: Path, record: DatasetRecord) -> RowHashes | None:
    """Read the hashes of a store's rows from the cache; None if they are missing or do not match the digest."""
    try:
        found = RowHashes(_file(cache, record.digest).read_bytes(), record.sample_shape)
    except FileNotFoundError:
        return None
    return found if found.digest(record.classes) == record.digest else None


def save_hashes(cache: Path, digest: str, hashes: RowHashes) -> None:
    """Keep the hashes of a dataset in the cache, by its digest."""
    write_bytes(_file(cache, digest), hashes.hashes)


def _file(cache: Path, digest: str) -> Path:
    return cache / f"rows-{digest}.hashes"
