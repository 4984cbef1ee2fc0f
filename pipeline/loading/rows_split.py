"""Any dataset, read like a split of a prepared one, so that rows of a store can be computed again."""

from dataclasses import dataclass

import numpy as np

from gradshard.pipeline.loading.places import CACHE
from gradshard.pipeline.loading.row_hashes import RowHashes, load_hashes, row_pieces
from gradshard.pipeline.loading.rows import Labels, Rows, read_pieces
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import chunking
from gradshard.storage.formats.dataset import Images
from gradshard.storage.formats.digests import row_hashes
from gradshard.storage.formats.manifest import DatasetRecord


@dataclass(frozen=True)
class RowsSplit:
    """The rows that a store was made for, as a ``LabelledRows``."""

    rows: Rows
    labels: Labels
    dataset: str
    classes: int
    digest: str
    sample_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def chunk(self) -> int:
        """Number of rows that are read together, as ``compute_signs`` does."""
        return chunking.plan(len(self), int(np.prod(self.sample_shape))).chunk

    def read_images(self, start: int, stop: int) -> Images:
        """Read the images of rows, uint8 (n, C, H, W)."""
        return self.take_images(np.arange(start, stop))

    def take_images(self, rows: Labels) -> Images:
        """Read the images of single rows, by their numbers; uint8 (n, C, H, W)."""
        if not len(rows):
            return np.empty((0, *self.sample_shape), dtype=np.uint8)
        images, _ = self.rows.read_many(rows.tolist())
        return images

    def read_labels(self, start: int = 0, stop: int | None = None) -> Labels:
        """Return the labels of rows, int64 (n,)."""
        return self.labels[start:stop]


def rows_split(rows: Rows, record: DatasetRecord, *, where: str) -> RowsSplit:
    """Read a dataset once, and return it as the rows that a store was made for.

    Args:
        rows: the dataset.
        record: the store's record of the rows that it was made for.
        where: the store's place, for messages.

    Raises:
        GradshardError: the rows are others; the message names the first one that differs, if it is known.
    """
    made_for = f"{where} was made for the {record.rows} rows of {record.name} ({record.split})"
    if len(rows) != record.rows:
        raise GradshardError(f"{made_for}, but the dataset has {len(rows)}: give those that it was made from, whole")
    parts, labels = [], []
    for _, images, classes in read_pieces(
        rows, row_pieces(slice(0, len(rows)), total=len(rows), sample_shape=record.sample_shape), workers=0
    ):
        if images.shape[1:] != record.sample_shape:
            raise GradshardError(
                f"{made_for}, images of {record.sample_shape} (C, H, W), but the dataset's are of {images.shape[1:]}: "
                "give the images, and the transform, that it was made from"
            )
        parts.append(row_hashes(images, classes))
        labels.append(classes)
    hashes = RowHashes(b"".join(parts), record.sample_shape)
    if hashes.digest(record.classes) != record.digest:
        known = load_hashes(CACHE, record)
        row = None if known is None else known.first_difference(hashes)
        which = "it holds" if row is None else f"row {row} has"
        raise GradshardError(
            f"{made_for}, but the dataset is another: {which} other pixels or labels, or another order; give images, "
            "labels and transform as compute_signs had them"
        )
    return RowsSplit(rows, np.concatenate(labels), record.name, record.classes, record.digest, record.sample_shape)
