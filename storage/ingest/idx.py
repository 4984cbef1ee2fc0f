"""IDX files, the format of MNIST: a big-endian header, then unsigned bytes; gzipped or not."""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.raw_images import RawImages

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
_BLOCK_BYTES = 1 << 20
_IMAGES, _LABELS = 3, 1


def idx_images(path: Path, *, sha256: str | None = None) -> RawImages:
    """Check an IDX file of images (N, H, W); they are read later, as uint8 (N, 1, H, W).

    Args:
        path: the file; its first bytes, not its name, show whether it is compressed.
        sha256: the SHA-256 that the *uncompressed* content must have, if it is known.

    Raises:
        GradshardError: the file is truncated, too long, of another kind, or not the one expected.
    """
    shape = _check(path, dimensions=_IMAGES, sha256=sha256)
    return RawImages(str(path), lambda: _open(path), _header_bytes(_IMAGES), shape, lambda images: images[:, None])


def idx_labels(path: Path, *, sha256: str | None = None) -> npt.NDArray[np.uint8]:
    """Read an IDX file of labels (N,); arguments and errors are those of ``idx_images``."""
    (count,) = _check(path, dimensions=_LABELS, sha256=sha256)
    with _open(path) as stream:
        stream.seek(_header_bytes(_LABELS))
        return np.frombuffer(stream.read(count), dtype=np.uint8)


def _check(path: Path, *, dimensions: int, sha256: str | None) -> tuple[int, ...]:
    """Return the shape that a file's header promises, after checking the whole file."""
    digest = hashlib.sha256()
    try:
        with _open(path) as stream:
            header = stream.read(_header_bytes(dimensions))
            digest.update(header)
            size = len(header)
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise GradshardError(f"{path} is a damaged gzip file ({error}): fetch it again") from error
    if sha256 is not None and (found := digest.hexdigest()) != sha256:
        raise GradshardError(
            f"{path} is not the file it should be (uncompressed SHA-256 {found[:12]}…, expected {sha256[:12]}…): "
            "remove it and fetch it again"
        )
    if len(header) < _header_bytes(dimensions) or header[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise GradshardError(
            f"{path} is not an IDX file of unsigned bytes with {dimensions} dimension(s): it begins with "
            f"{header[:4].hex() or 'nothing'}; give the files named in docs/datasets.md"
        )
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
    expected = len(header) + int(np.prod(shape, dtype=object))
    if size != expected:
        problem = "truncated" if size < expected else "too long"
        raise GradshardError(
            f"{path} is {problem}: its header promises {expected} bytes, but it has {size}; fetch it again"
        )
    return shape


def _header_bytes(dimensions: int) -> int:
    return 4 + 4 * dimensions


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path) if zipped else path.open("rb"))
