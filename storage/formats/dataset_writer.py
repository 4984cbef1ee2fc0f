"""Writing a dataset, shard by shard, as ``dataset`` reads it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import chunking
from gradshard.storage.formats.chunking import Layout, split_slice
from gradshard.storage.formats.dataset import FORMAT, VERSION, Images, Labels, images_file, label_dtype, labels_file
from gradshard.storage.formats.digests import RowsDigest
from gradshard.storage.formats.raw_images import RawImages
from gradshard.storage.formats.row_images import RowImages
from gradshard.storage.formats.shard_writer import write_plain_shard

# Images uint8 (N, C, H, W), in memory or read a slice at a time.
AnyImages = Images | RawImages | RowImages
# Images and their labels (N,).
LabelledImages = tuple[AnyImages, Labels]


def check_rows(images: AnyImages, labels: Labels, *, classes: int, where: str) -> None:
    """Refuse labelled images whose shapes or labels no dataset can have.

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
    if 0 in images.shape:
        raise GradshardError(f"{where}: images of shape {images.shape} have no pixels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        row = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
        raise GradshardError(f"{where}: label {int(labels[row])} of row {row} is out of range for {classes} classes")


def check_splits(name: str, classes: int, splits: Mapping[str, LabelledImages]) -> None:
    """Refuse labelled images that do not make a dataset together.

    Raises:
        GradshardError: there are fewer than two classes, ``check_rows`` refuses a split, or the splits' shapes differ.
    """
    if classes < 2:
        raise GradshardError(f"dataset {name} has {classes} class: classification needs two or more")
    for split, (images, labels) in splits.items():
        check_rows(images, labels, classes=classes, where=f"dataset {name}, split {split}")
    shapes = {split: images.shape[1:] for split, (images, _) in splits.items()}
    if len(set(shapes.values())) > 1:
        named = ", but those of ".join(f"{split} are of shape {shape}" for split, shape in shapes.items())
        raise GradshardError(
            f"dataset {name}: the images of {named} (channels, height, width): give all images one shape"
        )


def create_root(path: Path, *, name: str, classes: int, attributes: Mapping[str, Any] | None = None) -> None:
    """Create a dataset's group at ``path``, replacing what is there; ``attributes`` are added to its own."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"format": FORMAT, "version": VERSION, "name": name, "classes": classes, **(attributes or {})})


def create_split(path: Path, split: str, *, rows: int, sample_shape: tuple[int, ...], classes: int) -> Layout:
    """Create a split's group with empty arrays in a dataset's group, and return the layout of its rows."""
    cut = chunking.plan(rows, math.prod(sample_shape))
    group = zarr.open_group(path, mode="r+").create_group(split)
    group.create_array(
        "images",
        shape=(rows, *sample_shape),
        dtype="uint8",
        chunks=(cut.chunk, *sample_shape),
        shards=(cut.shard, *sample_shape),
        # Not compressed: zstd makes photographs a seventh smaller, but reading them about six times slower.
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


def write_shard(folder: Path, cut: Layout, shard: int, images: Iterable[Images], labels: Labels) -> None:
    """Write one whole shard of a split; the same rows give the same bytes.

    Args:
        folder: the split's group.
        cut: the layout of the split's rows.
        shard: which shard.
        images: the shard's images, uint8 (n, C, H, W), a chunk at a time.
        labels: the shard's labels, (n,).
    """
    write_plain_shard(folder / images_file(shard), cut, images)
    file = folder / labels_file(shard)
    # Otherwise Zarr merges what is written to a partly filled shard with the old content.
    file.unlink(missing_ok=True)
    array = zarr.open_array(folder / "labels", mode="r+").with_config({"write_empty_chunks": True})
    array[cut.shard_rows(shard)] = labels


def seal_split(folder: Path, digest: RowsDigest, attributes: Mapping[str, Any] | None = None) -> None:
    """Store the digest and further attributes of a split whose rows are all written."""
    zarr.open_group(folder, mode="r+").attrs.update({**(attributes or {}), "digest": digest.hexdigest()})


def write_dataset(
    path: Path,
    *,
    name: str,
    classes: int,
    splits: Mapping[str, LabelledImages],
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    class_names: Sequence[str] = (),
) -> Iterator[int]:
    """Write a dataset to an empty or missing folder, shard by shard, yielding the number of rows each time.

    Args:
        path: the folder.
        name: of the dataset.
        classes: the number of classes.
        splits: labelled images, by the name of the split.
        attributes: those of a split besides its digest, by the name of the split.
        class_names: in the order of the labels, if the classes have names.

    Raises:
        GradshardError: see ``check_splits``; nothing is written then.
    """
    check_splits(name, classes, splits)
    named = {"class_names": list(class_names)} if class_names else {}
    create_root(path, name=name, classes=classes, attributes=named)
    for split, (images, labels) in splits.items():
        shape = images.shape[1:]
        cut = create_split(path, split, rows=len(images), sample_shape=shape, classes=classes)
        digest = RowsDigest(sample_shape=shape, classes=classes)
        for shard in range(cut.shards):
            rows = cut.shard_rows(shard)
            write_shard(path / split, cut, shard, _digested(images, labels, rows, cut.chunk, digest), labels[rows])
            yield rows.stop - rows.start
        seal_split(path / split, digest, (attributes or {}).get(split))


def _digested(images: AnyImages, labels: Labels, rows: slice, chunk: int, digest: RowsDigest) -> Iterator[Images]:
    """Yield the images of a shard, a chunk at a time, adding the rows to the digest."""
    for part in split_slice(rows, chunk):
        some = images[part]
        digest.update(some, labels[part])
        yield some
