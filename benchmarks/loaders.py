"""Other people's loaders over the rows of ``rows``: what streaming is measured beside.

Each writes the rows in its own format, uncompressed, with the settings that its documentation recommends for a local
disk, and gives shuffled batches of ``BATCH`` images, labels and packed signs in contiguous memory.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from benchmarks.rows import LabelledSigns
from gradshard.storage.formats import bitplanes

BATCH = 64
# Processes, for the loaders that were faster with some than in this process, on two cores.
WORKERS = 2
# The rows that a loader without an order of its own draws from: what WebDataset's and Hugging Face's examples take.
BUFFER = 1000
SHARDS = 12

Bytes = npt.NDArray[np.uint8]


class Batch(NamedTuple):
    """Images (n, C, H, W), labels (n,) and planes (n, 2, B), as arrays or tensors."""

    images: Any
    labels: Any
    planes: Any


Epoch = Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class Place:
    """Place of rows: the loader's own ``folder``, our dataset and store in ``ours``, and what the rows are."""

    folder: Path
    ours: Path
    rows: int
    sample_shape: tuple[int, int, int]
    chunk: int
    window: int

    @property
    def planes_shape(self) -> tuple[int, int]:
        """The shape of a row's packed signs."""
        return 2, bitplanes.packed_bytes(int(np.prod(self.sample_shape)))


@dataclass(frozen=True)
class Loader:
    """A way to stream rows: ``write`` lays them into a folder, ``open`` gives what yields one epoch a call."""

    name: str
    package: str
    write: Callable[[LabelledSigns, Path], None]
    open: Callable[[Place], Epoch]

    @property
    def installed(self) -> bool:
        """Tell whether the package that it needs is here."""
        return importlib.util.find_spec(self.package) is not None


def _endless(loader: Any, unpack: Callable[[Any], Batch]) -> Epoch:
    def epoch() -> Iterator[Batch]:
        return map(unpack, loader)

    return epoch


# MosaicML Streaming


def _write_mosaicml(rows: LabelledSigns, folder: Path) -> None:
    from streaming import MDSWriter

    columns = {
        "image": f"ndarray:uint8:{','.join(map(str, rows.images.shape[1:]))}",
        "label": "int",
        "planes": f"ndarray:uint8:{','.join(map(str, rows.planes.shape[1:]))}",
    }
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for image, label, planes in zip(rows.images, rows.labels, rows.planes, strict=True):
            writer.write({"image": image, "label": int(label), "planes": planes})


def _open_mosaicml(place: Place) -> Epoch:
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(local=str(place.folder), shuffle=True, batch_size=BATCH)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, persistent_workers=True)
    return _endless(loader, lambda row: Batch(row["image"], row["label"], row["planes"]))


# LitData


def _write_litdata(rows: LabelledSigns, folder: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for index, (image, label, planes) in enumerate(zip(rows.images, rows.labels, rows.planes, strict=True)):
        writer[index] = {"image": torch.from_numpy(image), "label": int(label), "planes": torch.from_numpy(planes)}
    writer.done()
    writer.merge()


def _open_litdata(place: Place) -> Epoch:
    from litdata import StreamingDataLoader, StreamingDataset

    # Rows decoded one by one: decoded by windows, as is the default, shuffled rows of this size take ten times longer.
    dataset = StreamingDataset(str(place.folder), shuffle=True, drop_last=False, batch_decode=0)
    loader = StreamingDataLoader(dataset, batch_size=BATCH)
    return _endless(loader, lambda row: Batch(row["image"], row["label"], row["planes"]))


# WebDataset


def _write_webdataset(rows: LabelledSigns, folder: Path) -> None:
    import webdataset

    folder.mkdir()
    pattern = str(folder / "rows-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=-(-len(rows) // SHARDS), verbose=0) as writer:
        for index, (image, label, planes) in enumerate(zip(rows.images, rows.labels, rows.planes, strict=True)):
            writer.write({"__key__": f"{index:08d}", "image.npy": image, "label.cls": int(label), "planes.npy": planes})


def _open_webdataset(place: Place) -> Epoch:
    import webdataset

    files = sorted(map(str, place.folder.glob("*.tar")))
    dataset = (
        webdataset.WebDataset(files, shardshuffle=len(files))
        .shuffle(BUFFER)
        .decode()
        .to_tuple("image.npy", "label.cls", "planes.npy")
        .batched(BATCH)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS, persistent_workers=True)
    return _endless(loader, lambda row: Batch(*row))


# Hugging Face datasets


def _write_hugging_face(rows: LabelledSigns, folder: Path) -> None:
    import datasets

    features = {"image": datasets.Value("binary"), "label": datasets.Value("int64"), "planes": datasets.Value("binary")}
    with datasets.arrow_writer.ArrowWriter(
        path=str(folder) + ".arrow", features=datasets.Features(features), writer_batch_size=BUFFER
    ) as writer:
        for image, label, planes in zip(rows.images, rows.labels, rows.planes, strict=True):
            writer.write({"image": image.tobytes(), "label": int(label), "planes": planes.tobytes()})
        writer.finalize()


def _table_batch(place: Place, table: Any) -> Batch:
    def rows(name: str, shape: tuple[int, ...]) -> Bytes:
        column = table[name].combine_chunks()
        values = np.frombuffer(column.buffers()[2], dtype=np.uint8)
        start = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset]
        return values[start : start + len(column) * int(np.prod(shape))].reshape(len(column), *shape)

    return Batch(rows("image", place.sample_shape), table["label"].to_numpy(), rows("planes", place.planes_shape))


def _open_hugging_face(place: Place) -> Epoch:
    """Return the map-style dataset, its rows in an exact permutation."""
    import datasets

    dataset = datasets.Dataset.from_file(str(place.folder) + ".arrow").with_format("arrow")
    seeds = iter(range(1 << 30))

    def epoch() -> Iterator[Batch]:
        return map(partial(_table_batch, place), dataset.shuffle(seed=next(seeds)).iter(BATCH))

    return epoch


def _open_hugging_face_iterable(place: Place) -> Epoch:
    """Return the iterable dataset, which its documentation calls faster: shards shuffled, and rows within a buffer."""
    import datasets

    dataset = datasets.Dataset.from_file(str(place.folder) + ".arrow").to_iterable_dataset(num_shards=64)
    seeds = iter(range(1 << 30))

    def epoch() -> Iterator[Batch]:
        shuffled = dataset.shuffle(seed=next(seeds), buffer_size=BUFFER).with_format("arrow")
        return map(partial(_table_batch, place), shuffled.iter(BATCH))

    return epoch


# A memory-mapped array


def _write_arrays(rows: LabelledSigns, folder: Path) -> None:
    folder.mkdir()
    for name in ("images", "labels", "planes"):
        np.save(folder / f"{name}.npy", getattr(rows, name))


class _MappedRows(Dataset[tuple[Bytes, int, Bytes]]):
    """A map-style dataset as PyTorch's documentation writes it, row by row."""

    def __init__(self, folder: Path) -> None:
        self.images, self.labels, self.planes = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels", "planes")
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Bytes, int, Bytes]:
        return self.images[row], int(self.labels[row]), self.planes[row]


class _MappedBatches(_MappedRows):
    """The same, a whole batch at once."""

    def __getitems__(self, rows: list[int]) -> Batch:
        return Batch(*(torch.from_numpy(array[rows]) for array in (self.images, self.labels, self.planes)))


def _open_mapped_rows(place: Place) -> Epoch:
    return _endless(DataLoader(_MappedRows(place.folder), batch_size=BATCH, shuffle=True), lambda row: Batch(*row))


def _open_mapped_batches(place: Place) -> Epoch:
    dataset = _MappedBatches(place.folder)
    sampler = BatchSampler(RandomSampler(dataset), BATCH, drop_last=False)
    return _endless(DataLoader(dataset, batch_sampler=sampler, collate_fn=lambda batch: batch), lambda batch: batch)


READY_MADE = (
    Loader("MosaicML Streaming", "streaming", _write_mosaicml, _open_mosaicml),
    Loader("LitData", "litdata", _write_litdata, _open_litdata),
    Loader("WebDataset", "webdataset", _write_webdataset, _open_webdataset),
    Loader("Hugging Face datasets", "datasets", _write_hugging_face, _open_hugging_face),
    Loader("Hugging Face iterable datasets", "datasets", _write_hugging_face, _open_hugging_face_iterable),
    Loader("DataLoader over a memory map", "torch", _write_arrays, _open_mapped_rows),
)
MAPPED = Loader("a memory map taken by whole batches", "torch", _write_arrays, _open_mapped_batches)
