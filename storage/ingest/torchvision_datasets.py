"""torchvision's datasets of labelled images, by name, read from where it keeps them; downloaded only on request.

The rows keep the order in which torchvision gives them.
"""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Labels
from gradshard.storage.formats.row_images import RowImages
from gradshard.storage.ingest.decode import Transform
from gradshard.storage.ingest.labels import class_labels
from gradshard.storage.ingest.pictures import Reading, row_images
from gradshard.storage.ingest.sources import RawDataset, counted
from gradshard.storage.optional import remedy

# Attributes in which its classes keep the labels of all rows, if they do.
_LABELS = ("targets", "labels", "_labels")
_GIVEN = ("root", "train", "download", "transform", "target_transform", "transforms")


def torchvision_dataset(
    root: Path,
    *,
    kind: str,
    train: str = "train",
    test: str | None = None,
    arguments: Mapping[str, object] | None = None,
    download: bool = False,
    classes: int | None = None,
    transform: Transform | None = None,
) -> RawDataset:
    """Open both splits of one of torchvision's datasets; images are decoded later, some at a time.

    Args:
        root: the folder that torchvision keeps it in.
        kind: the name of its class, such as ``FashionMNIST``.
        train: the split of the training images, for a class with a parameter ``split``.
        test: that of the test images; by default ``test``.
        arguments: what else the class is called with.
        download: whether torchvision may fetch what is missing.
        classes: their number; by default that of the names in the class, or the largest label plus one.
        transform: the resizing of images.

    Raises:
        GradshardError: there is no such class, it has no labelled images in two splits, or its files are missing.
    """
    made, how = _class(kind), Reading(transform)
    splits: dict[str, tuple[RowImages, Labels]] = {}
    names: tuple[str, ...] = ()
    for split, options in _options(made, kind, train, test, dict(arguments or {}), download).items():
        where = f"{root}, {kind}, split {split}"
        data = _opened(made, kind, root, options)
        labels = _labels(data, where)
        splits[split] = row_images(len(data), _reader(data, labels, where), how, where=where), labels
        names = names or tuple(map(str, getattr(data, "classes", ())))
    raw = counted(splits, classes or len(names) or None, where=root)
    return RawDataset(raw.classes, raw.splits, raw.notes, names if len(names) == raw.classes else ())


def _class(kind: str) -> Any:
    try:
        from torchvision import datasets
    except ModuleNotFoundError as error:
        raise GradshardError(
            f"dataset.name torchvision needs the package torchvision: {remedy('torchvision')}"
        ) from error
    if kind not in datasets.__all__:
        close = difflib.get_close_matches(kind, datasets.__all__, n=1)
        suggestion = f" (did you mean {close[0]}?)" if close else ""
        raise GradshardError(f"dataset.kind {kind}: torchvision has no dataset of that name{suggestion}")
    return getattr(datasets, kind)


def _options(
    made: Any, kind: str, train: str, test: str | None, arguments: dict[str, object], download: bool
) -> dict[str, dict[str, object]]:
    """Return the arguments of the class for each split.

    Raises:
        GradshardError: it has no splits, or does not take what the parameters say.
    """
    known = _parameters(made)
    wrong = [name for name in arguments if name in _GIVEN or name not in known]
    if wrong:
        raise GradshardError(f"dataset.arguments has {wrong[0]}, which is not for {kind} here: remove it")
    if download and "download" not in known:
        raise GradshardError(f"torchvision cannot download {kind}: fetch it yourself, and remove dataset.download")
    common = arguments | ({"download": download} if "download" in known else {})
    if "train" in known:
        if (train, test or "test") != ("train", "test"):
            raise GradshardError(f"{kind} has the splits train and test alone: remove dataset.train and dataset.test")
        return {split: common | {"train": split == "train"} for split in ("train", "test")}
    if "split" not in known or "split" in arguments:
        raise GradshardError(
            f"dataset.kind {kind} is no dataset with a training and a test split: make one of your own by dataset.call"
        )
    return {"train": common | {"split": train}, "test": common | {"split": test or "test"}}


def _parameters(made: Any) -> set[str]:
    """Return the names of a class's arguments, including those that it passes on."""
    return {name for base in inspect.getmro(made)[:-1] for name in inspect.signature(base).parameters}


def _opened(made: Any, kind: str, root: Path, options: Mapping[str, object]) -> Any:
    try:
        return made(root=str(root), **options)
    # Reading or downloading files can raise anything.
    except Exception as error:
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        fetch = "" if options.get("download", True) else ", or set dataset.download to true"
        raise GradshardError(
            f"torchvision finds no {kind} in {root} ({problem}): set dataset.path to the root that it is called with"
            f"{fetch}"
        ) from error


def _labels(data: Any, where: str) -> Labels:
    """Read the labels from the attribute that torchvision keeps them in, or else by a pass through all rows."""
    for name in _LABELS:
        found = getattr(data, name, None)
        if found is not None and np.shape(found) == (len(data),):
            return class_labels(np.asarray(found), where=f"{where}, labels").numbers
    read = [_row(data, row, where)[1] for row in range(len(data))]
    return class_labels(np.asarray(read), where=f"{where}, labels").numbers


def _reader(data: Any, labels: Labels, where: str) -> Any:
    def read(rows: range) -> Iterator[Any]:
        for row in rows:
            image, label = _row(data, row, where)
            if label != labels[row]:
                raise GradshardError(f"{where}: row {row} has the label {label}, but its list of labels {labels[row]}")
            yield image

    return read


def _row(data: Any, row: int, where: str) -> tuple[Any, Any]:
    try:
        image, label = data[row]
    except Exception as error:
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        raise GradshardError(f"{where}: row {row} is no labelled image ({problem}): choose another dataset") from error
    return image, label
