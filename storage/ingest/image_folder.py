"""A folder of images, with one subfolder per class: its splits, its classes, and how its images are converted."""

from dataclasses import dataclass
from pathlib import Path

from gradshard.storage.errors import GradshardError
from gradshard.storage.ingest import file_index
from gradshard.storage.ingest.decode import Transform

_TEST_FOLDERS = ("val", "test")


@dataclass(frozen=True)
class ImageFolder:
    """Places of the images, and how they are converted.

    ``train`` and ``test`` are subfolders of ``root``; without ``train`` there are no training images. ``class_names``
    gives the classes in the order of their labels; by default they are the sorted names of the folders in ``train``
    (else ``test``). ``seed`` determines the order of the rows.
    """

    root: Path
    train: str | None
    test: str
    transform: Transform
    seed: int
    class_names: tuple[str, ...]

    @property
    def folders(self) -> dict[str, str | None]:
        """The subfolder of each split."""
        return {"train": self.train, "test": self.test}


def open_folder(
    root: Path, *, train: str | None, test: str | None, transform: Transform, seed: int, class_names: Path | None
) -> ImageFolder:
    """Find the splits and classes of a folder.

    Args:
        root: the folder.
        train: the subfolder of the training images, if there are any.
        test: the subfolder of the test images; by default ``val`` or ``test``, whichever there is.
        transform: the conversion of each image.
        seed: determines the order of the rows.
        class_names: a text file with one class name per line; by default the names of the folders.

    Raises:
        GradshardError: a folder or the file is missing, the test folder is ambiguous, or there is only one class.
    """
    if not root.is_dir():
        problem = f"{root} is no folder" if root.exists() else f"there is no folder {root}"
        raise GradshardError(f"{problem}: set dataset.path to the folder that holds those of the images")
    if test is None:
        there = [name for name in _TEST_FOLDERS if (root / name).is_dir()]
        if len(there) != 1:
            problem = "both val and test" if there else "neither val nor test"
            raise GradshardError(f"{root} holds {problem}: name the folder of the test images in dataset.test")
        (test,) = there
    names = file_index.class_folders(root / (train or test)) if class_names is None else _read_names(class_names)
    if len(names) < 2:
        place = class_names or root / (train or test)
        raise GradshardError(f"{place}: {names[0]} is the only class, but classification needs two or more")
    return ImageFolder(root.resolve(), train, test, transform, seed, tuple(names))


def _read_names(path: Path) -> list[str]:
    try:
        # Windows editors put a byte order mark before the first name.
        names = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GradshardError(f"dataset.class_names: {path} is no readable text file ({error})") from error
    names = [name.strip() for name in names if name.strip()]
    if len(set(names)) < len(names) or not names:
        raise GradshardError(f"dataset.class_names: {path} must name each class once, one a line")
    return names
