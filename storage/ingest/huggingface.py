"""Datasets in Hugging Face's forms: a folder of Parquet or Arrow files, what ``save_to_disk`` wrote, or on the hub.

The rows keep the order in which the library gives them: files by name, and the rows of each file in its own order.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.row_images import RowImages
from gradshard.storage.ingest.decode import Transform
from gradshard.storage.ingest.labels import ClassLabels, class_labels
from gradshard.storage.ingest.pictures import Reading, row_images
from gradshard.storage.ingest.sources import RawDataset, counted
from gradshard.storage.optional import remedy

_TEST_SPLITS = ("test", "validation", "valid", "val")
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img", "pixel_values"), ("label", "labels", "fine_label")
_SAVED = ("dataset_dict.json", "state.json")


def huggingface(
    folder: Path | None,
    *,
    train: str = "train",
    test: str | None = None,
    hub: str | None = None,
    columns: Sequence[str] | None = None,
    classes: int | None = None,
    layout: str | None = None,
    scale: float | None = None,
    transform: Transform | None = None,
) -> RawDataset:
    """Open two splits of a dataset; images are decoded later, some at a time.

    Args:
        folder: the folder of the files, unless they are on the hub.
        train: the split of the training images.
        test: that of the test images; by default the only split with a usual name.
        hub: a name on the hub, with a revision after an @ if wanted.
        columns: those of image and label; by default those with usual names, or the only ones of their types.
        classes: their number; by default that of label names or one-hot columns, or the largest label plus one.
        layout: where the channels of arrays are: ``chw`` or ``hwc``.
        scale: makes the numbers of arrays 0 to 255.
        transform: the resizing of images.

    Raises:
        GradshardError: nothing is there, a split or a column is missing or of another kind, or both splits name other
            classes.
    """
    with _quiet():
        place, found = (f"hub dataset {hub}", _of_hub(hub)) if hub else (str(folder), _of_folder(folder))
        chosen = {"train": _split(found, train, place), "test": _split(found, test or _test_split(found, place), place)}
        image, label = _columns(chosen["train"], columns, place)
        splits: dict[str, tuple[RowImages, ClassLabels]] = {}
        for name, data in chosen.items():
            where = f"{place}, split {data.split or name}"
            _check_columns(data, (image, label), where)
            labels = _labels(data, label, where=f"{where}, column {label}")
            at = f"{where}, column {image}"
            how = Reading(transform, layout, scale, np.uint8 if _holds_bytes(data.features[image]) else None)
            splits[name] = row_images(len(data), _reader(data, image, at), how, where=at), labels
    named = {name: _class_names(data, label) for name, data in chosen.items()}
    if named["train"] != named["test"]:
        one, other = (", ".join(its[:10]) or "nothing" for its in (named["train"], named["test"]))
        raise GradshardError(
            f"{place}: column {label} names the classes {one} in training images and {other} in test images, so its "
            "numbers mean different things: give both the same ClassLabel, for instance by cast_column"
        )
    names = named["train"]
    hot = splits["train"][1].one_hot
    raw = counted(
        {name: (images, labels.numbers) for name, (images, labels) in splits.items()},
        classes or len(names) or hot,
        where=place,
        notes=(
            f"{place}: the images are those of column {image}, the labels those of {label}",
            *(
                f"{place}: the labels of {split} are one-hot: the place of the 1 is the label"
                for split, (_, labels) in splits.items()
                if labels.one_hot is not None
            ),
        ),
    )
    return RawDataset(raw.classes, raw.splits, raw.notes, names if len(names) == raw.classes else ())


def _class_names(data: Any, column: str) -> tuple[str, ...]:
    """Return the names of the classes, in the order of their numbers; none if the column has plain numbers."""
    return tuple(getattr(data.features[column], "names", None) or ())


def _of_folder(folder: Path | None) -> Mapping[str, Any]:
    """Open all splits of a dataset on this machine, by name.

    Raises:
        GradshardError: nothing is there, or nothing that the library reads.
    """
    if folder is None:
        raise GradshardError("dataset huggingface needs dataset.path, a folder, or dataset.hub, a name on the hub")
    if not folder.is_dir():
        raise GradshardError(f"there is no folder {folder}: set dataset.path to that of the Parquet or Arrow files")
    saved = any((folder / name).is_file() for name in _SAVED)
    open_folder = _datasets().load_from_disk if saved else _datasets().load_dataset
    try:
        # A bare folder name may be that of a format.
        return _by_split(open_folder(str(folder.resolve())))
    # Reading untrusted files can raise anything.
    except Exception as error:
        raise GradshardError(
            f"{folder} is no dataset that can be read ({_problem(error)}): give a folder of Parquet or Arrow files, or "
            "what save_to_disk wrote"
        ) from error


def _of_hub(hub: str) -> Mapping[str, Any]:
    """Open all splits of a dataset on the hub, downloaded unless they are in the library's cache.

    Raises:
        GradshardError: the hub has no dataset of that name, or there is no network.
    """
    name, _, revision = hub.partition("@")
    if Path(name).exists():
        # The library would read the folder instead.
        raise GradshardError(
            f"dataset.hub is {name}, but that is a folder here too: name it in dataset.path if it is meant"
        )
    try:
        return _by_split(_datasets().load_dataset(name, revision=revision or None))
    except Exception as error:
        raise GradshardError(
            f"the hub gives no dataset {hub} ({_problem(error)}): check the name and the network, or fetch its files "
            "elsewhere and name their folder in dataset.path"
        ) from error


def _by_split(found: Any) -> Mapping[str, Any]:
    return dict(found) if isinstance(found, Mapping) else {str(found.split or "train"): found}


def _problem(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _split(found: Mapping[str, Any], name: str, place: str) -> Any:
    if name not in found:
        raise GradshardError(
            f"{place} has no split {name}: name one of {', '.join(found)} in dataset.train and another in dataset.test"
        )
    return found[name].with_format(None)


def _test_split(found: Mapping[str, Any], place: str) -> str:
    there = [name for name in _TEST_SPLITS if name in found]
    if len(there) != 1:
        problem = f"has {' and '.join(there)}" if there else f"has no test split, but {', '.join(found)}"
        raise GradshardError(f"{place} {problem}: name the split of the test images in dataset.test")
    return there[0]


def _columns(data: Any, named: Sequence[str] | None, place: str) -> tuple[str, str]:
    """Find the columns of image and label.

    Raises:
        GradshardError: it is not clear which they are.
    """
    if named is not None:
        return named[0], named[1]
    datasets, features = _datasets(), data.features
    found = [
        _column(features, usual, kind)
        for usual, kind in ((_IMAGE_COLUMNS, datasets.Image), (_LABEL_COLUMNS, datasets.ClassLabel))
    ]
    if found[0] is None or found[1] is None:
        what = "images" if found[0] is None else "labels"
        raise GradshardError(
            f"{place} has the columns {', '.join(features)}, and none is surely that of the {what}: name those of "
            "image and label in dataset.columns, such as [image, label]"
        )
    return found[0], found[1]


def _column(features: Mapping[str, Any], usual: Sequence[str], kind: type) -> str | None:
    named = [name for name in usual if name in features]
    alike = [name for name, feature in features.items() if isinstance(feature, kind)]
    return named[0] if named else alike[0] if len(alike) == 1 else None


def _check_columns(data: Any, columns: tuple[str, str], where: str) -> None:
    missing = [name for name in columns if name not in data.features]
    if missing:
        raise GradshardError(
            f"{where} has no column {missing[0]}, but {', '.join(data.features)}: name those of image and label in "
            "dataset.columns"
        )


def _labels(data: Any, column: str, *, where: str) -> ClassLabels:
    if isinstance(data.features[column], _datasets().Image):
        raise GradshardError(f"{where}: labels must be integers, but are images: name that of the labels second")
    return class_labels(data.select_columns([column]).with_format("numpy")[:][column], where=where)


def _reader(data: Any, column: str, where: str) -> Any:
    """Return a function that gives the images of a range of rows, as the library decodes them."""
    datasets = _datasets()
    images = data.select_columns([column])
    feature = images.features[column]
    if not isinstance(feature, datasets.Image) and _is_encoded(feature):
        images = images.cast_column(column, datasets.Image())

    def read(rows: range) -> Iterator[Any]:
        try:
            yield from images[rows.start : rows.stop][column]
        except GradshardError:
            raise
        # A decoder that meets nonsense raises anything.
        except Exception:
            yield from _one_by_one(images, column, rows, where)

    return read


def _one_by_one(images: Any, column: str, rows: range, where: str) -> Iterator[Any]:
    for row in rows:
        try:
            image = images[row][column]
        except Exception as error:
            raise GradshardError(
                f"{where}: the image of row {row} cannot be decoded ({_problem(error)}): leave it out, or give a "
                "whole one"
            ) from error
        yield image


def _is_encoded(feature: Any) -> bool:
    """Tell whether a column holds the bytes of image files without being declared so."""
    return (isinstance(feature, dict) and "bytes" in feature) or getattr(feature, "dtype", "") in (
        "binary",
        "large_binary",
    )


def _holds_bytes(feature: Any) -> bool:
    """Tell whether a column of arrays or lists, of any depth, is declared to hold uint8."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return getattr(feature, "dtype", "") == "uint8"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the library's progress bars."""
    bars = _datasets().utils.logging
    were = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if were:
            bars.enable_progress_bar()


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise GradshardError(f"dataset.name huggingface needs the package datasets: {remedy('datasets')}") from error
    return datasets
