"""The labels of raw arrays: one class number per image, however they were saved, and the number of classes."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Labels

_LARGEST = np.iinfo(np.int64).max
_NAMED = 3


@dataclass(frozen=True)
class ClassLabels:
    """Labels, integers (N,), and the number of classes if the array was one-hot."""

    numbers: Labels
    one_hot: int | None = None


def class_labels(array: npt.NDArray[Any], *, where: str) -> ClassLabels:
    """Read labels from an array: integers (N,) or (N, 1), or one-hot rows (N, K) of any numbers.

    Args:
        array: as it was saved.
        where: its file and name, for errors.

    Raises:
        GradshardError: it is neither, such as several labels per row, or a label does not fit into int64.
    """
    if array.ndim == 0:
        raise GradshardError(f"{where} is the single value {array}: it must hold one label for each image")
    if 0 in array.shape[1:]:
        raise GradshardError(f"{where} is of shape {array.shape}, which holds no labels: give one for each image")
    if array.size == len(array):
        return ClassLabels(_compact(_integers(array.reshape(-1), where)))
    return ClassLabels(_compact(_hot(array, where)), one_hot=array.shape[1])


def count_classes(labels: Mapping[str, Labels], *, where: object) -> int:
    """Count the classes that labels number: the largest label plus one.

    Args:
        labels: those of each split.
        where: the file or folder that they came from, for errors.

    Raises:
        GradshardError: there is only one class, or most of the numbers up to the largest label have no image.
    """
    present = sorted({label for numbers in labels.values() for label in np.unique(numbers).tolist() if label >= 0})
    if not present:
        return 2  # the check of the rows says what is wrong with them
    if len(present) == 1:
        raise GradshardError(f"{where}: every label is {present[0]}, but classification needs two classes or more")
    classes: int = present[-1] + 1
    if 2 * len(present) < classes:
        split, row = _first_row(labels, present[-1])
        raise GradshardError(
            f"{where}: label {present[-1]} of row {row} in {split} would make {classes} classes, of which "
            f"{classes - len(present)} have no image: number the classes from 0 on, or, if that is meant, set "
            f"dataset.classes to {classes}"
        )
    return classes


def gaps(labels: Labels, classes: int) -> str | None:
    """Name the classes without an example among training labels, if there are any."""
    present = {label for label in np.unique(labels).tolist() if 0 <= label < classes}
    count = classes - len(present)
    if not count:
        return None
    missing = list(itertools.islice((label for label in range(classes) if label not in present), _NAMED))
    named = ", ".join(map(str, missing)) + (f" and {count - _NAMED} more" if count > _NAMED else "")
    start = "; if your labels start at 1, subtract 1" if missing[0] == 0 else ""
    which = f"class {named} has" if count == 1 else f"classes {named} have"
    return f"{which} no examples in train, of {classes} classes from 0 on{start}"


def _integers(array: npt.NDArray[Any], where: str) -> Labels:
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iu":
        raise GradshardError(f"{where}: labels must be integers, but are {array.dtype}: save class numbers from 0 on")
    if len(array) and int(array.max()) > _LARGEST:
        row = int(array.argmax())
        raise GradshardError(f"{where}: label {array[row]} of row {row} is no class number: number them from 0 on")
    return cast(Labels, array)


def _hot(array: npt.NDArray[Any], where: str) -> Labels:
    """Return the place of the single 1 in each row."""
    remedy = "give one class number for each image, or one-hot rows"
    if array.ndim != 2 or array.dtype.kind not in "biufc":
        raise GradshardError(f"{where} is {array.dtype} of shape {array.shape}: {remedy}")
    wrong = np.flatnonzero(((array == 1).sum(axis=1) != 1) | ((array != 0).sum(axis=1) != 1))
    if len(wrong):
        row = int(wrong[0])
        values = ", ".join(map(str, array[row, : 2 * _NAMED].tolist())) + (
            ", ..." if array.shape[1] > 2 * _NAMED else ""
        )
        raise GradshardError(
            f"{where} is of shape {array.shape}, and row {row}, ({values}), is not one-hot: several labels an image "
            f"cannot be learnt here; {remedy}"
        )
    return cast(Labels, (array == 1).argmax(axis=1))


def _compact(labels: Labels) -> Labels:
    if not len(labels) or labels.min() < 0:
        return labels  # the check of the rows names the row
    # The images stay in their file, so eight bytes per label would be most of the memory.
    return labels.astype(np.min_scalar_type(int(labels.max())), copy=False)


def _first_row(labels: Mapping[str, Labels], label: int) -> tuple[str, int]:
    return next((split, int(np.flatnonzero(n == label)[0])) for split, n in labels.items() if (n == label).any())
