"""Walking through folders of images: links are followed, and a dead or circular one is an error.

Nothing that may be a folder is skipped silently: a missing class would shift the labels of all later ones.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gradshard.storage.errors import GradshardError

# Those that torchvision takes for images.
EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Other image formats: their files are not read, but their number is reported.
OTHER_FORMATS = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".tga")
# Folders that systems and network disks create by themselves, for thumbnails or deleted files.
_LITTER = frozenset({"$RECYCLE.BIN", "#recycle", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"})

Identity = tuple[int, int]


def subfolders(folder: Path) -> list[str]:
    """List the folders in a folder, sorted, without hidden ones and those that systems create by themselves.

    Raises:
        GradshardError: a link is dead, so that it is unknown whether it is to a folder.
    """
    return sorted(entry.name for entry in _shown(folder) if _is_folder(entry))


def images(root: Path, folder: str, passed_over: Counter[str] | None = None) -> Iterator[str]:
    """Yield the paths, relative to ``root``, of the images below one of its folders, without hidden ones.

    Dead links are among them, if their names are those of images. Files in formats that are not read are counted in
    ``passed_over``, by extension.

    Raises:
        GradshardError: a link leads back to a folder that contains it, or a link without an image's name is dead.
    """
    above = (root / folder).parent
    real = above.resolve()
    around = frozenset(map(_identity, (above, *above.parents, real, *real.parents)))
    yield from _images(root, folder, around, Counter() if passed_over is None else passed_over)


def loose_images(folder: Path) -> int:
    """Count the images directly in a folder, not those in its subfolders."""
    return sum(entry.name.lower().endswith(EXTENSIONS) and entry.is_file() for entry in _shown(folder))


def is_dead_link(path: Path) -> bool:
    """Tell whether a path is a link to something that does not exist."""
    return path.is_symlink() and not path.exists()


def stat_image(path: Path) -> os.stat_result:
    """Read the size and date of a file, or of the link itself if it is dead."""
    try:
        return path.stat()
    except OSError:
        if is_dead_link(path):
            return path.lstat()
        raise


def _images(root: Path, folder: str, above: frozenset[Identity], passed_over: Counter[str]) -> Iterator[str]:
    here = _identity(root / folder)
    if here in above:
        raise GradshardError(f"{root / folder} leads back to a folder that it lies in: remove the link")
    for entry in _shown(root / folder):
        is_image = entry.name.lower().endswith(EXTENSIONS)
        if _is_folder(entry, file_is_fine=is_image):
            yield from _images(root, f"{folder}/{entry.name}", above | {here}, passed_over)
        elif is_image:
            yield f"{folder}/{entry.name}"
        elif (extension := Path(entry.name).suffix.lower()) in OTHER_FORMATS:
            passed_over[extension] += 1


def _shown(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name not in _LITTER:
                yield entry


def _is_folder(entry: "os.DirEntry[str]", *, file_is_fine: bool = False) -> bool:
    if entry.is_symlink() and not file_is_fine and is_dead_link(Path(entry.path)):
        raise GradshardError(
            f"{entry.path} is a link to {Path(entry.path).readlink()}, which is not there: mount or restore that, or "
            "remove the link"
        )
    # For a link to itself, the entry would raise an error; the path is simply not a folder.
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _identity(folder: Path) -> Identity:
    found = folder.stat()
    return found.st_dev, found.st_ino
