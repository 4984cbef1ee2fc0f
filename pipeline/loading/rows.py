"""Any dataset as rows: images of 8 bits, uint8 (C, H, W), and the numbers of their classes.

A sign store belongs to pixels and labels in one order, so everything that a digest covers is read here, in the same
way, from a map-style dataset of PyTorch, a dataset of Hugging Face, or arrays.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Images

Image = npt.NDArray[np.uint8]
Transform = Callable[[Any], Any]
Labels = npt.NDArray[np.int64]
T = TypeVar("T")

# The columns of datasets whose rows are mappings, in the order in which they are looked for.
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img", "pixel_values"), ("label", "labels", "fine_label")
_CHANNELS = (1, 3, 4)
# Share of a step of 1/255; rounding in single precision is about a thousand times smaller.
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class _Pair:
    """Images (N, ...) and labels (N,) as a dataset."""

    images: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self.images[row], self.labels[row]


@dataclass(frozen=True)
class Rows:
    """Any dataset, its own ``transform`` of each image, and the ``columns`` of image and label."""

    base: Any
    transform: Transform | None = None
    columns: tuple[str, str] | None = None

    def __len__(self) -> int:
        return len(self.base)

    def sample(self, row: int) -> tuple[Any, Any]:
        """Return the transformed image of a row and its label, as the dataset has them.

        Raises:
            GradshardError: the row is not an image and a label.
        """
        image, label = _taken_apart(self.base[row], row, self.columns)
        return (image if self.transform is None else self.transform(image)), label

    def read(self, row: int) -> tuple[Image, int]:
        """Read a row as a store's digest covers it: uint8 (C, H, W), and the number of its class.

        Raises:
            GradshardError: the image does not consist of pixels of 8 bits, or the label is not the number of a class.
        """
        image, label = self.sample(row)
        return to_pixels(image, where=_named(row)), to_class(label, where=_named(row))

    def read_many(self, rows: Sequence[int]) -> tuple[Images, Labels]:
        """Read some rows: images uint8 (n, C, H, W) and labels int64 (n,).

        Raises:
            GradshardError: as ``read`` does, or the images differ in shape.
        """
        samples = [self.sample(row) for row in rows]
        labels = [to_class(label, where=_named(row)) for row, (_, label) in zip(rows, samples, strict=True)]
        return _stacked(rows, [image for image, _ in samples]), np.array(labels, dtype=np.int64)


def as_rows(dataset: Any, transform: Transform | None = None, columns: tuple[str, str] | None = None) -> Rows:
    """Take a map-style dataset, a dataset of Hugging Face, or a pair of arrays as rows.

    Raises:
        GradshardError: the dataset is none of these, or is empty.
    """
    if isinstance(dataset, tuple | list) and len(dataset) == 2 and getattr(dataset[0], "ndim", 0) in (3, 4):
        images, labels = dataset
        if len(images) != len(labels):
            raise GradshardError(f"{len(images)} images but {len(labels)} labels: give as many of both")
        dataset = _Pair(images, labels)
    numbered = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not numbered or isinstance(dataset, Mapping | str | IterableDataset):
        raise GradshardError(
            f"{type(dataset).__name__} is no dataset whose rows have numbers: give a map-style dataset of PyTorch, one "
            "split of a Hugging Face dataset, or a pair of arrays (images, labels)"
        )
    if not len(dataset):
        raise GradshardError("the dataset has no rows: give one that has")
    return Rows(dataset, transform, columns)


def read_pieces(rows: Rows, pieces: Sequence[slice], *, workers: int) -> Iterator[tuple[slice, Images, Labels]]:
    """Read pieces of rows in order, in ``workers`` processes of a DataLoader; 0: in this process.

    Raises:
        GradshardError: no store can be made of a row.
    """
    source = _Pieces(rows, pieces)
    # An error that a worker raises arrives with its traceback as the message; one that it returns arrives unchanged.
    # With a generator of its own it leaves torch's, which the caller may have seeded, as it is.
    items = DataLoader(
        cast(Any, source), batch_size=None, num_workers=workers, collate_fn=_as_it_is, generator=torch.Generator()
    )
    for piece, item in zip(pieces, items if workers else map(source.__getitem__, range(len(pieces))), strict=True):
        if isinstance(item, GradshardError):
            raise item
        yield piece, *item


@dataclass(frozen=True)
class _Pieces:
    """Pieces of rows as a dataset."""

    rows: Rows
    pieces: Sequence[slice]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, number: int) -> tuple[Images, Labels] | GradshardError:
        piece = self.pieces[number]
        try:
            return self.rows.read_many(range(piece.start, piece.stop))
        except GradshardError as error:
            return error


def _as_it_is(item: T) -> T:
    return item


def _named(row: int) -> str:
    return f"row {row} of the dataset"


def _stacked(rows: Sequence[int], images: Sequence[Any]) -> Images:
    """Return the images of some rows as pixels of 8 bits, uint8 (n, C, H, W)."""
    together = _tensors_of_floats(images)
    if together is not None:
        # All at once takes a tenth of the time; if that fails, the rows are converted singly to name the wrong one.
        with suppress(GradshardError):
            return _from_floats(together, "")
    pixels = [to_pixels(image, where=_named(row)) for row, image in zip(rows, images, strict=True)]
    for row, image in zip(rows, pixels, strict=True):
        if image.shape != pixels[0].shape:
            raise GradshardError(
                f"row {row} of the dataset is an image of {image.shape} and row {rows[0]} one of "
                f"{pixels[0].shape} (C, H, W): bring all images to one size by transform="
            )
    return np.stack(pixels)


def _tensors_of_floats(images: Sequence[Any]) -> npt.NDArray[np.floating] | None:
    """Stack images that are float tensors (C, H, W) of one shape on the CPU; None if they are anything else."""
    first = images[0]
    if not isinstance(first, Tensor) or first.ndim != 3 or first.shape[0] not in _CHANNELS or not first.numel():
        return None
    alike = (first.dtype, first.shape, first.device)
    if first.dtype not in (torch.float32, torch.float64) or first.device.type != "cpu":
        return None
    if not all(isinstance(image, Tensor) and (image.dtype, image.shape, image.device) == alike for image in images):
        return None
    values: npt.NDArray[np.floating] = torch.stack(list(images)).detach().numpy()
    return values


def to_pixels(image: Any, *, where: str) -> Image:
    """Return an image as pixels of 8 bits, uint8 (C, H, W).

    Args:
        image: a PIL image, grey or RGB; or an array or tensor, (H, W) or (C, H, W), uint8 or floats in [0, 1] that are
            multiples of 1/255.
        where: the image's name in messages.

    Raises:
        GradshardError: the image is something else, such as normalised.
    """
    if hasattr(image, "getbands"):
        return _from_pil(image, where)
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        values = (image.float() if image.dtype == torch.bfloat16 else image).numpy()  # NumPy has no bfloat16
    else:
        values = image
    if not isinstance(values, np.ndarray) or values.ndim not in (2, 3) or not values.size:
        kind = f"of shape {np.shape(values)}" if isinstance(values, np.ndarray) else type(image).__name__
        raise GradshardError(f"{where} is no image but {kind}: give a PIL image, or a tensor or array (C, H, W)")
    values = values if values.ndim == 3 else values[np.newaxis]
    if values.shape[0] not in _CHANNELS and values.shape[2] in _CHANNELS:
        raise GradshardError(
            f"{where} is an array of shape {values.shape} with its channels last: bring them to the front by "
            "transform=, as torchvision's ToImage does"
        )
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise GradshardError(f"{where} is an image of {values.dtype}: give uint8, or floats in [0, 1]")
    return _from_floats(values, where)


def _from_pil(image: Any, where: str) -> Image:
    if image.mode not in ("L", "RGB"):
        raise GradshardError(f"{where} is an image of mode {image.mode}: convert it to L or RGB by transform=")
    pixels = np.array(image, dtype=np.uint8)
    return pixels[np.newaxis] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _from_floats(values: npt.NDArray[np.floating], where: str) -> Image:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise GradshardError(
            f"{where} has pixels from {low:.3g} to {high:.3g} and not in [0, 1]: take what normalises (or scales) them "
            "out of the dataset and name it by mean= and std= of compute_signs, once, so that epsilon means pixels"
        )
    steps = values * values.dtype.type(255) if values.dtype == np.float32 else values.astype(np.float64) * 255
    whole = np.rint(steps)
    if np.abs(steps - whole).max() > _TOLERANCE:
        raise GradshardError(
            f"{where} has pixels between the multiples of 1/255, as resizing in floats gives them: round them to "
            "8 bits by transform= after the last step that mixes pixels, as ToDtype(torch.uint8, scale=True) does"
        )
    return whole.astype(np.uint8)


def to_class(label: Any, *, where: str) -> int:
    """Return a label as the number of its class.

    Raises:
        GradshardError: the label is not a whole number from 0 on.
    """
    single = label.numel() == 1 if isinstance(label, Tensor) else isinstance(label, np.ndarray) and label.size == 1
    value = label.item() if single else label
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
        raise GradshardError(f"{where} has the label {str(label)[:40]}: give the number of its class, counted from 0")
    return int(value)


def _taken_apart(sample: Any, row: int, columns: tuple[str, str] | None) -> tuple[Any, Any]:
    if isinstance(sample, Mapping):
        found = columns or (_first(sample, _IMAGE_COLUMNS), _first(sample, _LABEL_COLUMNS))
        if not all(column in sample for column in found):
            raise GradshardError(
                f"row {row} of the dataset has the columns {', '.join(map(str, sample))}: name those of image and "
                "label by columns=(IMAGE, LABEL)"
            )
        return sample[found[0]], sample[found[1]]
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return sample[0], sample[1]
    raise GradshardError(
        f"row {row} of the dataset is a {type(sample).__name__} and no pair (image, label): wrap the dataset so that "
        "it gives one"
    )


def _first(sample: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in sample), names[0])
