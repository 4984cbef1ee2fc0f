"""NumPy archives of labelled images: x_train, y_train, x_test and y_test."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Images
from gradshard.storage.formats.raw_images import RawImages
from gradshard.storage.formats.scaling import check_scalable, to_bytes
from gradshard.storage.ingest.arrangement import Arrange, Shape, arrangement
from gradshard.storage.ingest.labels import ClassLabels, class_labels

_SPLITS = ("train", "test")


def npz_splits(
    file: Path, *, layout: str | None = None, scale: float | None = None
) -> Mapping[str, tuple[Images | RawImages, ClassLabels]]:
    """Open the images of both splits, which are read later, some at a time, and read their labels.

    Images are of shape (N, H, W), (N, H, W, C) or (N, C, H, W), both splits alike. Those that NumPy saved in Fortran
    order are read at once.

    Args:
        file: the archive.
        layout: ``chw`` or ``hwc``, if the shapes do not show which axis is that of the channels.
        scale: makes the images' numbers 0 to 255; by default they must be uint8.

    Raises:
        GradshardError: there is no such file, or it does not hold such arrays.
    """
    held = "x_train, y_train, x_test and y_test"
    with opened_archive(file, held, "set dataset.path to an .npz archive") as archive:
        arrays = {split: _array(file, archive, f"x_{split}") for split in _SPLITS}
        arrange = arrangement({a.key: a.shape for a in arrays.values()}, layout=layout, where=file)
        return {
            split: (
                _images(file, archive, array, arrange, scale),
                class_labels(archive[_array(file, archive, f"y_{split}").key], where=f"{file}, y_{split}"),
            )
            for split, array in arrays.items()
        }


@contextmanager
def opened_archive(file: Path, held: str, remedy: str) -> "Iterator[np.lib.npyio.NpzFile]":
    """Open an archive of arrays, for as long as arrays are read from it.

    Args:
        file: the archive.
        held: the names of its arrays, for errors.
        remedy: what to do if there is no such file, for errors.

    Raises:
        GradshardError: there is no such file, it is not an archive of arrays, or what was read from it is damaged.
    """
    try:
        with _archive(file) as archive:
            yield archive
    except FileNotFoundError as error:
        raise GradshardError(f"no file {file}: {remedy}") from error
    # A compression that Python lacks, and a password, are told by the last two.
    except (
        KeyError,
        ValueError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise GradshardError(f"{file} is not a NumPy archive of {held} ({error})") from error


@dataclass(frozen=True)
class _Array:
    """An array of the archive, as its header describes it."""

    key: str
    shape: Shape
    dtype: "np.dtype[Any]"
    fortran: bool
    offset: int


def _archive(file: Path) -> "np.lib.npyio.NpzFile":
    archive = np.load(file, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("it is a single array")
    return archive


def _array(file: Path, archive: "np.lib.npyio.NpzFile", key: str) -> _Array:
    if key not in archive:
        raise KeyError(f"{key} is not in it")
    with _open(file, f"{key}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        if dtype.hasobject:
            raise GradshardError(
                f"{file}, {key} holds Python objects, to read which their code would have to run: save it as an array "
                "of numbers, in which all images have one shape"
            )
        return _Array(key, shape, dtype, fortran, stream.tell())


def _images(
    file: Path, archive: "np.lib.npyio.NpzFile", array: _Array, arrange: Arrange, scale: float | None
) -> Images | RawImages:
    where = f"{file}, {array.key}"
    check_scalable(array.dtype, scale, where=where)
    if array.fortran:
        return arrange(to_bytes(archive[array.key], scale, first_row=0, where=where))
    return RawImages(
        where,
        lambda: _open(file, f"{array.key}.npy"),
        array.offset,
        array.shape,
        arrange,
        stored_dtype=array.dtype,
        scale=scale,
    )


def _open(file: Path, member: str) -> BinaryIO:
    with zipfile.ZipFile(file) as archive:
        # The opened member keeps the archive's file open by itself.
        return cast(BinaryIO, archive.open(member))
