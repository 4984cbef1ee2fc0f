"""Files in a store's folder that are none of the store's: litter that systems leave anywhere, and foreign files."""

import fnmatch
from pathlib import Path

from gradshard.storage.formats.manifest import Manifest
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE

# What Finder, Explorer, NFS, FUSE, KDE and network disks leave in folders that somebody looked at, and what lies below.
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
    """Tell whether a relative path is, or lies below, what a system leaves in folders by itself."""
    return any(fnmatch.fnmatchcase(part, pattern) for part in name.split("/") for pattern in _LITTER)


def strangers(folder: Path, published: Manifest) -> tuple[list[str], list[str]]:
    """Find what lies in a store's folder and is no file of the store.

    Returns:
        The litter, which harms nobody; and the other files and links, which somebody put there. Relative paths, sorted.
    """
    own = {MANIFEST, SIGNATURE, *published.files}
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    found = sorted({path.relative_to(folder).as_posix() for path in paths} - own)
    return [name for name in found if is_litter(name)], [name for name in found if not is_litter(name)]
