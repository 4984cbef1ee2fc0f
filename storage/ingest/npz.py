"""NumPy archives of labelled images: x_train, y_train, x_test and y_test."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Images, Labels
from gradshard.storage.formats.raw_images import Pixels, RawImages

_CHANNELS = (1, 3)


def npz_split(file: Path, split: str) -> tuple[Images | RawImages, Labels]:
    """The images and labels of ``train`` or ``test``; images are read later, some at a time.

    Images are uint8 of shape (N, H, W), (N, H, W, C) or, if C is 1 or 3 and W is not, (N, C, H, W). Those that NumPy
    saved in Fortran's order are read at once.

    Raises:
        GradshardError: there is no such file, or it does not hold that.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            labels = archive[f"y_{split}"]
            images = _images(file, archive, f"x_{split}")
    except FileNotFoundError as error:
        raise GradshardError(f"no file {file}: set dataset.path to an .npz archive") from error
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise GradshardError(
            f"{file} is not a NumPy archive of x_train, y_train, x_test and y_test ({error})"
        ) from error
    return images, _flat_labels(labels, file)


def _images(file: Path, archive: "np.lib.npyio.NpzFile", key: str) -> Images | RawImages:
    if key not in archive:
        raise KeyError(f"{key} is not in it")
    member = f"{key}.npy"
    with _open(file, member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        offset = stream.tell()
    arrange = _arrangement(shape, dtype, file)
    if fortran:
        return arrange(archive[key])
    return RawImages(f"{file}, {key}", lambda: _open(file, member), offset, shape, arrange)


def _open(file: Path, member: str) -> BinaryIO:
    with zipfile.ZipFile(file) as archive:
        # What is opened keeps the archive's file open by itself.
        return cast(BinaryIO, archive.open(member))


def _arrangement(shape: tuple[int, ...], dtype: "np.dtype[np.generic]", file: Path) -> Callable[[Pixels], Images]:
    """What makes rows of such an array uint8 (n, C, H, W)."""
    if dtype != np.uint8 or len(shape) not in (3, 4):
        raise GradshardError(
            f"{file}: images must be uint8 of shape (N, H, W), (N, H, W, C) or (N, C, H, W), but are {dtype} of shape "
            f"{shape}"
        )
    if len(shape) == 3:
        return lambda images: images[:, None]
    if shape[1] in _CHANNELS and shape[3] not in _CHANNELS:
        return lambda images: images
    return lambda images: np.ascontiguousarray(np.moveaxis(images, 3, 1))


def _flat_labels(labels: npt.NDArray[np.generic], file: Path) -> Labels:
    if not np.issubdtype(labels.dtype, np.integer):
        raise GradshardError(f"{file}: labels must be integers, but are {labels.dtype}")
    flat = cast(Labels, labels if labels.ndim == 1 else labels.reshape(len(labels), -1)[:, 0])
    if flat.min(initial=0) < 0:
        return flat  # for whoever checks labels to name the row
    # With all images in their file, eight bytes a label would be the most that is in memory.
    return flat.astype(np.min_scalar_type(int(flat.max(initial=0))), copy=False)
