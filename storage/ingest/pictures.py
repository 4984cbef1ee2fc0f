"""Conversion of the images that dataset libraries give, Pillow images or arrays, to rows of a dataset."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.row_images import Pixels, RowImages
from gradshard.storage.formats.scaling import check_scalable, to_bytes
from gradshard.storage.ingest.arrangement import arrangement
from gradshard.storage.ingest.decode import BrokenImageError, Transform, to_rgb, transformed

# Gives the images of a range of rows, in their order.
Read = Callable[[range], Iterable[Any]]


@dataclass(frozen=True)
class Reading:
    """Conversion of images: ``transform`` resizes them, if given; the others are for arrays.

    ``dtype`` is that of the numbers in lists, which do not tell their own.
    """

    transform: Transform | None = None
    layout: str | None = None
    scale: float | None = None
    dtype: type[np.uint8] | None = None


def row_images(count: int, read: Read, how: Reading, *, where: str) -> RowImages:
    """Return images of ``count`` rows, read some at a time; all must have the shape of the first.

    Args:
        count: the number of rows.
        read: gives the images of a range of rows.
        how: the conversion of each.
        where: their source, for errors.

    Raises:
        GradshardError: there are no rows, or the first is no image.
    """
    if not count:
        raise GradshardError(f"{where}: no rows")
    shape = next(_decoded(range(1), read, how, where)).shape

    def decode(rows: range) -> Pixels:
        images = np.empty((len(rows), *shape), dtype=np.uint8)
        for place, (row, image) in enumerate(zip(rows, _decoded(rows, read, how, where), strict=True)):
            if image.shape != shape:
                raise GradshardError(
                    f"{where}: row {row} is an image of shape {image.shape} and row 0 one of {shape} (channels, "
                    "height, width): bring all to one shape by dataset.size, or before they are given"
                )
            images[place] = image
        return images

    return RowImages(count, shape, decode)


def _decoded(rows: range, read: Read, how: Reading, where: str) -> Iterator[Pixels]:
    for row, image in zip(rows, read(rows), strict=True):
        yield pixels(image, how, row=row, where=where)


def pixels(image: Any, how: Reading, *, row: int, where: str) -> Pixels:
    """Convert an image to one row of a dataset, uint8 (C, H, W).

    Args:
        image: a Pillow image, or an array or lists of numbers (H, W), (C, H, W) or (H, W, C).
        how: its conversion.
        row: its number, for errors.
        where: its source, for errors.

    Raises:
        GradshardError: it is not an image, or its kind has no stated meaning.
    """
    if image is None:
        raise GradshardError(f"{where}: row {row} has no image: leave such rows out")
    if not isinstance(image, Image.Image):
        return _of_array(_array(image, how, row, where), how, row, where)
    if how.transform is not None:
        try:
            return transformed(to_rgb(image), how.transform)
        except BrokenImageError as error:
            raise GradshardError(f"{where}: row {row} is no image that can be used ({error}): leave it out") from error
    if image.mode not in ("L", "RGB"):
        raise GradshardError(
            f"{where}: row {row} is an image of Pillow's mode {image.mode}: set dataset.size, which makes all images "
            "RGB, or convert them to L or RGB"
        )
    values = np.asarray(image, dtype=np.uint8)
    return values[np.newaxis] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _array(image: Any, how: Reading, row: int, where: str) -> "np.ndarray[Any, Any]":
    try:
        return np.asarray(image, how.dtype)
    except (TypeError, ValueError) as error:
        raise GradshardError(
            f"{where}: row {row} is no array, since its lists differ in length or hold something else than numbers: "
            "leave it out, or give a whole one"
        ) from error


def _of_array(values: "np.ndarray[Any, Any]", how: Reading, row: int, where: str) -> Pixels:
    if how.transform is not None:
        raise GradshardError(f"{where}: row {row} is an array, which dataset.size does not resize: remove that key")
    if values.ndim not in (2, 3):
        raise GradshardError(f"{where}: row {row} is no image but of shape {values.shape}: name the column of images")
    check_scalable(values.dtype, how.scale, where=f"{where}, row {row}")
    arrange = arrangement({f"row {row}": (1, *values.shape)}, layout=how.layout, where=where)
    made: Pixels = arrange(to_bytes(values[np.newaxis], how.scale, first_row=row, where=where))[0]
    return made
