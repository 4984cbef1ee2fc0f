"""The dataset on disk: labelled images in one order, fixed at preparation, as a plain Zarr group.

``data/NAME.zarr`` holds the groups ``train`` and ``test``, each with the arrays ``images``, uint8 (N, C, H, W), and
``labels``, unsigned (N,). A row index names an example for ever; a split's digest covers content and order. Datasets
made from image files also name the file of each row, in ``files.parquet`` beside the arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer import cpu
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation, ZstdCodec
from zarr.core.metadata import ArrayV3Metadata

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.chunking import Layout, check_range
from gradshard.storage.formats.digests import RowsDigest
from gradshard.storage.formats.gather import gather
from gradshard.storage.formats.shard_reader import DamagedError, Encoding, Rows, Scratch, ShardReader, decode
from gradshard.storage.formats.store_files import Folder, ReadableFiles, StoreFiles

FORMAT = "gradshard-dataset"
VERSION = 1
# The file of each row, in one column ``file``, in the folder of a split.
FILES = "files.parquet"
# All metadata files of a dataset.
METADATA = (
    "zarr.json",
    *(f"{split}/{name}zarr.json" for split in ("train", "test") for name in ("", "images/", "labels/")),
)
# Enough for the names of a million classes, or of as many broken images.
_METADATA_LIMIT = 1 << 28
# The most that a checksum and zstd add to labels that cannot be compressed.
_LABELS_MORE = 1 << 10

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer]
ZarrArray = zarr.Array[Any]
ZarrNode = ZarrArray | zarr.Group


@dataclass(frozen=True)
class Split:
    """One split of a dataset at ``where``, a path or URL: labelled images that are read by rows.

    ``files`` are the dataset's. A ``remote`` split is read in whole shards.
    """

    name: str
    dataset: str
    classes: int
    digest: str
    where: str
    files: StoreFiles
    sample_shape: tuple[int, int, int]
    encoding: Encoding
    remote: bool = False

    def __len__(self) -> int:
        return self.layout.rows

    @property
    def layout(self) -> Layout:
        """Return the layout of the rows of ``images``."""
        return self.encoding.layout

    @property
    def chunk(self) -> int:
        """Rows per chunk of ``images``."""
        return self.layout.chunk

    def read_images(self, start: int, stop: int) -> Images:
        """Read the images of rows, uint8 (n, C, H, W).

        Raises:
            GradshardError: there are no such rows, or a shard is missing or damaged.
        """
        check_range(start, stop, rows=len(self), where=self._called)
        return self.take_images(np.arange(start, stop))

    def take_images(self, rows: Rows) -> Images:
        """Read the images of individual rows by number, uint8 (n, C, H, W).

        Raises:
            GradshardError: there are no such rows, or a shard is missing or damaged.
        """
        if len(rows) and not np.issubdtype(rows.dtype, np.integer):
            raise GradshardError(
                f"rows are {rows.dtype}, but images are taken by the numbers of rows: give integers, of a mask "
                "np.flatnonzero(mask)"
            )
        if len(rows):
            check_range(int(rows.min()), int(rows.max()) + 1, rows=len(self), where=self._called)
        images = np.empty((len(rows), *self.sample_shape), dtype=np.uint8)
        gather(self, rows, images)
        return images

    def take(self, shard: int, rows: Rows, out: Images, positions: Rows, scratch: Scratch) -> None:
        """Read the images of individual rows of a shard into given places.

        Args:
            shard: which shard.
            rows: rows of the shard, in ascending order.
            out: uint8 (n, C, H, W), contiguous; row ``rows[i]`` goes to ``out[positions[i]]``.
            positions: as many as rows.
            scratch: the calling thread's own.

        Raises:
            GradshardError: the shard is missing or damaged.
        """
        name = f"{self.name}/{images_file(shard)}"
        try:
            with self.files.open(name) as opened:
                ShardReader(opened, shard, self.encoding, scratch).take(rows, out, positions)
        except FileNotFoundError as error:
            raise self._missing("images", name) from error
        except DamagedError as error:
            raise self._damaged("images", shard, error) from error

    def read_labels(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
        """Read the labels of rows, int64 (n,).

        Raises:
            GradshardError: there are no such rows, or a shard's labels are missing or damaged.
        """
        stop = len(self) if stop is None else stop
        check_range(start, stop, rows=len(self), where=self._called)
        shards = range(start // self.layout.shard, -(-stop // self.layout.shard)) if stop > start else range(0)
        labels = np.empty(len(shards) * self.layout.shard, dtype=label_dtype(self.classes))
        for at, shard in enumerate(shards):
            self._read_labels(shard, labels[at * self.layout.shard :][: self.layout.shard])
        first = shards.start * self.layout.shard
        return labels[start - first : stop - first].astype(np.int64)

    def _read_labels(self, shard: int, out: Labels) -> None:
        name = f"{self.name}/{labels_file(shard)}"
        try:
            decode(self.files.read(name, out.nbytes + _LABELS_MORE), out.view(np.uint8))
        except FileNotFoundError as error:
            raise self._missing("labels", name) from error
        except ValueError as error:
            raise self._damaged("labels", shard, error) from error

    def read_files(self) -> list[str]:
        """Return the file of each row, as a path relative to the folder of raw images.

        Raises:
            GradshardError: the dataset was not made from image files.
        """
        # Imported here: training, which reads the rest of a dataset, needs no pyarrow.
        import pyarrow.parquet as pq

        name = f"{self.name}/{FILES}"
        try:
            with self.files.open(name) as opened:
                files: list[str] = pq.read_table(opened, columns=["file"]).column("file").to_pylist()
        except FileNotFoundError as error:
            raise GradshardError(
                f"dataset {self.dataset} has no {self.where}/{name}: only a dataset of image files keeps their names"
            ) from error
        return files

    def load(self) -> tuple[Images, npt.NDArray[np.int64]]:
        """Read all rows and check them against the split's digest.

        Raises:
            GradshardError: the images, labels or their order are not what was prepared.
        """
        images, labels = self.read_images(0, len(self)), self.read_labels()
        found = rows_digest(images, labels, classes=self.classes)
        if found != self.digest:
            raise GradshardError(
                f"the {self.name} rows of dataset {self.dataset} were changed or reordered after preparation (digest "
                f"{found[:12]}, recorded {self.digest[:12]}): {self._remedy}"
            )
        return images, labels

    @property
    def _called(self) -> str:
        return f"the {self.name} split of {self.where}"

    def _missing(self, what: str, name: str) -> GradshardError:
        return GradshardError(
            f"the {self.name} {what} of dataset {self.dataset}: {self.where}/{name} is missing: {self._remedy}"
        )

    def _damaged(self, what: str, shard: int, error: Exception) -> GradshardError:
        return GradshardError(
            f"the {self.name} {what} of dataset {self.dataset}, shard {shard}, {error}: {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        if self.remote:
            return f"delete what the cache keeps of {self.where}, and tell its owner if that does not help"
        return "run `gradshard prepare` again"


@dataclass(frozen=True)
class Dataset:
    """An open dataset; classes without names are called by their numbers."""

    name: str
    classes: int
    class_names: tuple[str, ...]
    train: Split
    test: Split

    def check_trainable(self) -> None:
        """Refuse a dataset that was prepared without training images.

        Raises:
            GradshardError: there are none.
        """
        if not len(self.train):
            raise GradshardError(
                f"dataset {self.name} has no training images, because dataset.train is null: name their folder there "
                "and run `gradshard prepare` again"
            )

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image."""
        return self.train.sample_shape


def images_file(shard: int) -> str:
    """Return the file of a shard's images, in the folder of a split."""
    return f"images/c/{shard}/0/0/0"


def labels_file(shard: int) -> str:
    """Return the file of a shard's labels, in the folder of a split."""
    return f"labels/c/{shard}"


def rows_digest(images: Images, labels: Labels, *, classes: int) -> str:
    """Return the digest of labelled images held in memory; see ``RowsDigest``."""
    digest = RowsDigest(sample_shape=images.shape[1:], classes=classes)
    digest.update(images, labels)
    return digest.hexdigest()


def label_dtype(classes: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned dtype that holds the labels and whose maximum is not a label."""
    return np.dtype(np.min_scalar_type(classes))


def open_dataset(path: Path) -> Dataset:
    """Open a prepared dataset.

    Raises:
        GradshardError: nothing is there, or it is not a dataset of this format.
    """
    if not path.exists():
        raise GradshardError(f"no dataset at {path}: run `gradshard prepare` (or `dvc repro prepare`) first")
    files = Folder(path)
    metadata = read_metadata(files)
    if METADATA[0] not in metadata:
        raise _foreign(str(path))
    return open_files(files, metadata, where=str(path))


def read_metadata(files: ReadableFiles) -> dict[str, bytes]:
    """Read all metadata files of a dataset, by name; missing ones are left out."""
    found = {}
    for name in METADATA:
        try:
            found[name] = files.read(name, _METADATA_LIMIT)
        except FileNotFoundError:
            continue
    return found


def open_files(files: StoreFiles, metadata: Mapping[str, bytes], *, where: str, remote: bool = False) -> Dataset:
    """Open a dataset whose metadata, from ``read_metadata``, is known.

    Raises:
        GradshardError: it does not describe a dataset of this format.
    """
    remedy = "tell its owner" if remote else "prepare it again with `gradshard prepare`"
    try:
        root = zarr.open_group({name: cpu.Buffer.from_bytes(content) for name, content in metadata.items()}, mode="r")
        attributes = dict(root.attrs)
        if attributes.get("format") != FORMAT and not remote:
            raise _foreign(where)
        if attributes.get("format") != FORMAT or attributes.get("version") != VERSION:
            raise GradshardError(f"{where} is not a gradshard dataset of version {VERSION}: {remedy}")
        name, classes = str(attributes["name"]), int(str(attributes["classes"]))
        train, test = (
            _open_split(root[split], split, name, classes, files, where=where, remote=remote)
            for split in ("train", "test")
        )
        named = attributes.get("class_names")
        class_names = tuple(map(str, named if isinstance(named, list) else range(classes)))
    # Zarr raises many kinds of errors for malformed metadata.
    except (FileNotFoundError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise GradshardError(f"{where} is not a whole dataset ({error}): {remedy}") from error
    return Dataset(name=name, classes=classes, class_names=class_names, train=train, test=test)


def _foreign(where: str) -> GradshardError:
    return GradshardError(
        f"{where} is no dataset that `gradshard prepare` made: name the data/NAME.zarr that it writes, or prepare "
        "these images (docs/datasets.md)"
    )


def _open_split(
    group: ZarrNode, split: str, name: str, classes: int, files: StoreFiles, *, where: str, remote: bool
) -> Split:
    images, labels = (group[part] if isinstance(group, zarr.Group) else None for part in ("images", "labels"))
    if not isinstance(images, zarr.Array) or not isinstance(labels, zarr.Array):
        raise KeyError(f"{split}/images and {split}/labels must be arrays")
    _, channels, height, width = images.shape
    encoding = _encoding(images)
    _check_labels(labels, encoding.layout, classes)
    return Split(
        name=split,
        dataset=name,
        classes=classes,
        digest=str(group.attrs["digest"]),
        where=where,
        files=files,
        sample_shape=(channels, height, width),
        encoding=encoding,
        remote=remote,
    )


def _check_labels(labels: ZarrArray, layout: Layout, classes: int) -> None:
    """Check that labels are stored as ``write_dataset`` stores them."""
    metadata = labels.metadata
    codecs = [type(codec) for codec in metadata.codecs] if isinstance(metadata, ArrayV3Metadata) else []
    if codecs != [BytesCodec, ZstdCodec, Crc32cCodec] or labels.dtype != label_dtype(classes):
        raise ValueError(f"its labels are no array of {label_dtype(classes)} as `gradshard prepare` writes it")
    if labels.shape != (layout.rows,) or labels.chunks != (layout.shard,):
        raise ValueError("its labels are not cut as its images are")


def _encoding(images: ZarrArray) -> Encoding:
    """Return the encoding of images, and check that it is one that ``write_dataset`` uses."""
    metadata = images.metadata
    sharding = metadata.codecs[0] if isinstance(metadata, ArrayV3Metadata) else None
    if images.dtype != np.uint8 or images.shards is None or not isinstance(sharding, ShardingCodec):
        raise ValueError("its images are no sharded array of uint8")
    codecs = [type(codec) for codec in sharding.codecs]
    if codecs not in ([BytesCodec, ZstdCodec, Crc32cCodec], [BytesCodec, Crc32cCodec]):
        raise ValueError("its images went through other codecs")
    return Encoding(
        layout=Layout(rows=images.shape[0], chunk=images.chunks[0], shard=images.shards[0]),
        index_first=sharding.index_location is ShardingCodecIndexLocation.start,
        compressed=ZstdCodec in codecs,
    )
