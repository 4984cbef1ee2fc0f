"""Writing a dataset, shard by shard, as ``dataset`` reads it."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from storage import layout
from storage.datasets.dataset import FORMAT, VERSION, Images, Labels, label_dtype
from storage.datasets.raw_images import RawImages
from storage.digests import RowsDigest
from storage.errors import GradshardError
from storage.layout import Layout


def check_rows(images: Images | RawImages, labels: Labels, *, classes: int, where: str) -> None:
    """Refuse labelled images that no dataset may hold, by their shapes and labels.

    Raises:
        GradshardError: wrong dtype or shape, counts that differ, or a label out of range.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise GradshardError(
            f"{where}: images must be uint8 of shape (N, C, H, W), but are {images.dtype} of shape {images.shape}"
        )
    if len(images) != len(labels):
        raise GradshardError(
            f"{where}: {len(images)} images but {len(labels)} labels; both must come from the same source"
        )
    if not len(images):
        raise GradshardError(f"{where}: no images")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        row = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
        raise GradshardError(f"{where}: label {int(labels[row])} of row {row} is out of range for {classes} classes")


def create_root(path: Path, *, name: str, classes: int, attributes: Mapping[str, Any] | None = None) -> None:
    """Make the group of a dataset at ``path``, in place of whatever is there; ``attributes`` are added to its own."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"format": FORMAT, "version": VERSION, "name": name, "classes": classes, **(attributes or {})})


def create_split(path: Path, split: str, *, rows: int, sample_shape: tuple[int, ...], classes: int) -> Layout:
    """Make the group of a split with its empty arrays in a dataset's group; gives how its rows are cut."""
    cut = layout.plan(rows, math.prod(sample_shape))
    group = zarr.open_group(path, mode="r+").create_group(split)
    group.create_array(
        "images",
        shape=(rows, *sample_shape),
        dtype="uint8",
        chunks=(cut.chunk, *sample_shape),
        shards=(cut.shard, *sample_shape),
        # Not compressed: zstd makes photographs a seventh smaller, and reading them some six times slower.
        compressors=[Crc32cCodec()],
        dimension_names=("row", "channel", "y", "x"),
    )
    group.create_array(
        "labels",
        shape=(rows,),
        dtype=label_dtype(classes),
        chunks=(cut.shard,),
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        dimension_names=("row",),
    )
    return cut


def write_shard(folder: Path, rows: slice, images: Images, labels: Labels) -> None:
    """Write the rows of one whole shard of a split, whose group is at ``folder``; the same rows give the same bytes."""
    for name, values in (("images", images), ("labels", labels)):
        array = zarr.open_array(folder / name, mode="r+").with_config({"write_empty_chunks": True})
        array[rows] = values


def seal_split(folder: Path, digest: RowsDigest, attributes: Mapping[str, Any] | None = None) -> None:
    """Give a split whose rows are all written its digest, and further attributes."""
    zarr.open_group(folder, mode="r+").attrs.update({**(attributes or {}), "digest": digest.hexdigest()})


def write_dataset(
    path: Path, *, name: str, classes: int, splits: Mapping[str, tuple[Images | RawImages, Labels]]
) -> Iterator[int]:
    """Write a dataset to an empty or missing folder, shard by shard, yielding the rows written each time."""
    create_root(path, name=name, classes=classes)
    for split, (images, labels) in splits.items():
        check_rows(images, labels, classes=classes, where=f"dataset {name}, split {split}")
        shape = images.shape[1:]
        cut = create_split(path, split, rows=len(images), sample_shape=shape, classes=classes)
        digest = RowsDigest(sample_shape=shape, classes=classes)
        for shard in range(cut.shards):
            rows = cut.shard_rows(shard)
            some, classes_of_some = images[rows], labels[rows]
            write_shard(path / split, rows, some, classes_of_some)
            digest.update(some, classes_of_some)
            yield rows.stop - rows.start
        seal_split(path / split, digest)
