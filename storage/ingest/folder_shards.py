"""One shard of a dataset that is made from a folder of images, decoded and written by any worker.

Doing it again gives the same bytes. A receipt records which files a shard was made from, so that the shard counts as
missing once one of them changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradshard.storage.formats import dataset, dataset_writer
from gradshard.storage.formats.atomic import sync
from gradshard.storage.formats.chunking import Layout, split_slice
from gradshard.storage.formats.digests import digest_of, row_hashes
from gradshard.storage.formats.receipts import Ledger, ShardReceipt
from gradshard.storage.ingest.decode import BrokenImageError, Transform, read_image
from gradshard.storage.ingest.file_index import Entry, FileIndex
from gradshard.storage.ingest.row_order import read_order


class Receipt(ShardReceipt):
    """Receipt of one finished shard: its files' bytes, the digest of its sources, the hashes of its rows in hex."""

    files: dict[str, int]
    source: str
    rows: str

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of each file of the shard, by its name in the split's group."""
        return self.files


@dataclass(frozen=True)
class Broken:
    """A broken image: its entry in the listing, and why it is broken."""

    entry: Entry
    reason: str


@dataclass(frozen=True)
class Outcome:
    """Outcome of a shard: the number of its rows, and the broken images that prevented writing it."""

    shard: int
    rows: int
    broken: tuple[Broken, ...] = ()


@dataclass(frozen=True)
class SplitTask:
    """Inputs that a worker needs to make shards of one split: paths and plain values."""

    root: Path
    listing: Path
    order: Path
    store: Path
    ledger: Path
    cut: Layout
    transform: Transform


def make_shard(task: SplitTask, shard: int) -> Outcome:
    """Decode and write one whole shard, or find which of its images are broken; safe to repeat."""
    entries = _entries(task, shard)
    # When a worker dies, Dask asks again for the results that it held.
    if receipt_of(task, shard, entries) is not None:
        return Outcome(shard, len(entries))
    labels = np.array([entry.label for entry in entries], dtype=np.int64)
    ledger, hashes = Ledger(task.ledger, Receipt), bytearray()
    ledger.forget(shard)
    try:
        dataset_writer.write_shard(task.store, task.cut, shard, _decoded(task, entries, labels, hashes), labels)
    except _BrokenShardError as error:
        return Outcome(shard, len(entries), error.broken)
    # The images' file was synced when it was written.
    sync(task.store / dataset.labels_file(shard))
    receipt = Receipt(
        shard=shard,
        files={file: (task.store / file).stat().st_size for file in files_of(shard)},
        source=_source(task, entries),
        rows=hashes.hex(),
    )
    ledger.add(receipt)
    return Outcome(shard, len(entries))


@dataclass
class _BrokenShardError(Exception):
    """A shard cannot be written because some of its images are broken."""

    broken: tuple[Broken, ...]


def _decoded(
    task: SplitTask, entries: Sequence[Entry], labels: dataset.Labels, hashes: bytearray
) -> Iterator[dataset.Images]:
    """Yield the images of a shard, a chunk at a time, adding the hashes of their rows to ``hashes``.

    Raises:
        _BrokenShardError: after the last chunk, if some are broken.
    """
    broken = []
    for rows in split_slice(slice(0, len(entries)), task.cut.chunk):
        images = np.zeros((rows.stop - rows.start, *task.transform.sample_shape), dtype=np.uint8)
        for row, entry in enumerate(entries[rows]):
            try:
                images[row] = read_image(task.root / entry.file, task.transform)
            except BrokenImageError as error:
                broken.append(Broken(entry, str(error)))
        hashes += row_hashes(images, labels[rows])
        yield images
    if broken:
        raise _BrokenShardError(tuple(broken))


def receipt_of(task: SplitTask, shard: int, entries: Sequence[Entry] | None = None) -> Receipt | None:
    """Return the receipt of a shard, if it is done and was made from the files that it would be made from now."""
    receipt = Ledger(task.ledger, Receipt).receipt(shard, task.store)
    if receipt is None or receipt.source != _source(task, entries or _entries(task, shard)):
        return None
    return receipt


def _entries(task: SplitTask, shard: int) -> list[Entry]:
    return FileIndex(task.listing).take(read_order(task.order)[task.cut.shard_rows(shard)])


def _source(task: SplitTask, entries: Sequence[Entry]) -> str:
    """Return the digest of a shard's layout and source files."""
    return digest_of({"cut": [task.cut.chunk, task.cut.shard], "entries": list(map(list, entries))})


def files_of(shard: int) -> tuple[str, str]:
    """Return the files of a shard, in the folder of a split: those of its images and of its labels."""
    return dataset.images_file(shard), dataset.labels_file(shard)
