"""Files in a store's folder that do not belong to it: harmless ones, left by systems or kills, and foreign ones."""

import fnmatch
from pathlib import Path

from gradshard.storage.formats.atomic import unfinished_file
from gradshard.storage.formats.manifest import Manifest
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE

# What Finder, Explorer, NFS, FUSE, KDE and network disks leave in folders that somebody looked at.
_LITTER = (
    ".DS_Store",
    "._*",
    ".AppleDouble",
    ".Spotlight-V100",
    ".Trashes",
    ".fseventsd",
    "__MACOSX",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    ".nfs*",
    ".fuse_hidden*",
    ".directory",
    "@eaDir",
)


def is_litter(name: str) -> bool:
    """Tell whether a relative path is, or lies below, litter that a system leaves in folders by itself."""
    return any(fnmatch.fnmatchcase(part, pattern) for part in name.split("/") for pattern in _LITTER)


def strangers(folder: Path, published: Manifest) -> tuple[list[str], list[str]]:
    """Find the files in a store's folder that do not belong to the store.

    Returns:
        The harmless ones, which are litter of systems and unfinished files of killed processes, and the other files
        and links; relative paths, sorted.
    """
    own = {MANIFEST, SIGNATURE, *published.files}
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    found = sorted({path.relative_to(folder).as_posix() for path in paths} - own)
    harmless = [name for name in found if is_litter(name) or unfinished_file(name) in own]
    return harmless, [name for name in found if name not in harmless]
