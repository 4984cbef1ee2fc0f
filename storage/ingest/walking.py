"""Walking through folders of images: links are followed, and one that leads nowhere or in a circle is named.

Nothing that may be a folder is passed over in silence: a class that goes missing would move the labels of all later
ones.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gradshard.storage.errors import GradshardError

# Those that torchvision takes for images.
EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Other formats of images: no file of theirs is read, and their number is told.
OTHER_FORMATS = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".tga")
# Folders that systems and network disks leave by themselves, with thumbnails or what was thrown away.
_LITTER = frozenset({"$RECYCLE.BIN", "#recycle", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"})

Identity = tuple[int, int]


def subfolders(folder: Path) -> list[str]:
    """List the folders in a folder, sorted; hidden ones are none, nor is what systems leave by themselves.

    Raises:
        GradshardError: a link leads nowhere, so that nobody knows whether it is to a folder.
    """
    return sorted(entry.name for entry in _shown(folder) if _is_folder(entry))


def images(root: Path, folder: str, passed_over: Counter[str] | None = None) -> Iterator[str]:
    """Yield the paths, relative to ``root``, of the images below a folder of it, without what is hidden.

    Links to files that lead nowhere are among them, if their names are those of images. Files in formats that are not
    read are counted in ``passed_over``, by extension.

    Raises:
        GradshardError: a link leads back to a folder that it lies in, or one without an image's name leads nowhere.
    """
    above = (root / folder).parent
    real = above.resolve()
    around = frozenset(map(_identity, (above, *above.parents, real, *real.parents)))
    yield from _images(root, folder, around, Counter() if passed_over is None else passed_over)


def loose_images(folder: Path) -> int:
    """Count the images that lie in a folder itself and in none of its subfolders."""
    return sum(entry.name.lower().endswith(EXTENSIONS) and entry.is_file() for entry in _shown(folder))


def is_dead_link(path: Path) -> bool:
    """Tell whether a path is a link that leads nowhere."""
    return path.is_symlink() and not path.exists()


def stat_image(path: Path) -> os.stat_result:
    """Read the size and date of a file, or of the link if it leads nowhere."""
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
    # A link to itself is no folder, but an error to ask about.
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _identity(folder: Path) -> Identity:
    found = folder.stat()
    return found.st_dev, found.st_ino
