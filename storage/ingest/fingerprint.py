"""Fingerprints of raw data that show whether it changed since it was prepared; cheap enough for every run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.digests import canonical_json, digest_of, file_sha256
from gradshard.storage.ingest import file_index
from gradshard.storage.ingest.image_folder import ImageFolder

# Reading a larger file takes longer than a fingerprint may.
_READ_BYTES = 1 << 30

Fingerprint = Mapping[str, object]


def file_fingerprint(path: Path) -> Fingerprint:
    """Return the size and SHA-256 of a file; above 1 GiB, its size and modification time in ns.

    Raises:
        GradshardError: there is no such file.
    """
    if not path.is_file():
        raise GradshardError(f"no file {path}: set dataset.path to the raw data")
    stat = path.stat()
    if stat.st_size > _READ_BYTES:
        return {"size": stat.st_size, "modified": stat.st_mtime_ns}
    return {"size": stat.st_size, "sha256": file_sha256(path)}


def folder_fingerprint(source: ImageFolder) -> Fingerprint:
    """Return the SHA-256 of the class names and, per split, of its images' names, labels, sizes and modification times.

    Raises:
        GradshardError: the folder is not laid out as it should be.
    """
    labels = {name: label for label, name in enumerate(source.class_names)}
    classes = {"classes": digest_of({"names": list(source.class_names)})}
    return classes | {
        split: _listing_fingerprint(source.root, folder, labels)
        for split, folder in source.folders.items()
        if folder is not None
    }


def files_fingerprint(folder: Path) -> Fingerprint:
    """Return the number of files below a folder, and the SHA-256 of their names, sizes and modification times in ns.

    Raises:
        GradshardError: there is no such folder.
    """
    if not folder.is_dir():
        raise GradshardError(f"there is no folder {folder}: set dataset.path to the raw data")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [[path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return {"files": len(files), "sha256": digest_of({"files": listed})}


def _listing_fingerprint(root: Path, folder: str, labels: Mapping[str, int]) -> Fingerprint:
    count, sha256 = 0, hashlib.sha256()
    for entry in file_index.scan(root, folder, labels):
        count += 1
        sha256.update(canonical_json(list(entry)).encode())
    return {"images": count, "sha256": sha256.hexdigest()}
