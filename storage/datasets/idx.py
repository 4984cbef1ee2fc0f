"""IDX files, the format of MNIST: a big-endian header, then unsigned bytes; gzipped or not."""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.errors import GradshardError

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, dimensions: int, sha256: str | None = None) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes with the given number of dimensions.

    Args:
        path: the file; compression is told by its first bytes, not its name.
        dimensions: 3 for images (N, H, W), 1 for labels (N,).
        sha256: what the *uncompressed* content must hash to, if it is known.

    Raises:
        GradshardError: the file is truncated, too long, of another kind, or not the one expected.
    """
    content = _uncompressed(path)
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise GradshardError(
            f"{path} is not the file it should be (uncompressed SHA-256 {found[:12]}…, expected {sha256[:12]}…): "
            "remove it and fetch it again"
        )
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise GradshardError(
            f"{path} is not an IDX file of unsigned bytes with {dimensions} dimension(s): it begins with "
            f"{content[:4].hex() or 'nothing'}; give the files named in docs/datasets.md"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = header + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        problem = "truncated" if len(content) < expected else "too long"
        raise GradshardError(
            f"{path} is {problem}: its header promises {expected} bytes, but it has {len(content)}; fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _uncompressed(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise GradshardError(f"{path} is a damaged gzip file ({error}): fetch it again") from error
