"""The rows that a store was made from: a split of a prepared dataset, or arrays of a NumPy archive."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradshard.pipeline.loading.rows import as_rows
from gradshard.pipeline.loading.rows_split import RowsSplit, rows_split
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.labelled_rows import LabelledRows, Splits
from gradshard.storage.formats.manifest import DatasetRecord
from gradshard.storage.ingest.npz import opened_archive


@dataclass(frozen=True)
class ArchivedRows:
    """A dataset whose one split serves as both train and test."""

    rows: RowsSplit

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.rows.classes

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.rows.sample_shape

    @property
    def train(self) -> RowsSplit:
        """The rows."""
        return self.rows

    @property
    def test(self) -> RowsSplit:
        """The rows."""
        return self.rows


def open_rows(place: Path, record: DatasetRecord, *, where: str) -> tuple[Splits, LabelledRows]:
    """Open the dataset that a store says it was made from, and its rows.

    Args:
        place: a prepared dataset, or an archive with the arrays x_SPLIT and y_SPLIT.
        record: what the store says of its dataset.
        where: the store's place, for messages.

    Raises:
        GradshardError: the dataset is missing, or is not the one that the store names.
    """
    if place.suffix == ".npz":
        rows = rows_split(as_rows(_archived(place, record.split)), record, where=where)
        return ArchivedRows(rows), rows
    data = open_dataset(place)
    split = {"train": data.train, "test": data.test}.get(record.split)
    # In a store made in Python the split may have any name.
    for some in (data.train, data.test) if split is None else ():
        split = some if some.digest == record.digest else split
    if split is None or split.digest != record.digest:
        raise GradshardError(
            f"{where} was made from dataset {record.digest[:12]}, split {record.split}, not from {place}: give the "
            "dataset that it was made from"
        )
    return data, split


def _archived(file: Path, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read the images and labels of a split."""
    names = f"x_{split}", f"y_{split}"
    with opened_archive(file, " and ".join(names), "name a prepared .zarr dataset or an .npz archive") as archive:
        images, labels = (np.asarray(archive[name]) for name in names)
        return images, labels
