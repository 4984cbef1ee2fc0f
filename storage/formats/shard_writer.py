"""Writing a shard whose chunks are not compressed, a chunk at a time.

Zarr-python encodes a shard as a whole and holds several copies of it in memory, which for large shards is most of the
memory that preparing a dataset takes. The files equal those of zarr-python byte for byte, as a test checks.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gradshard.storage.formats.atomic import atomic_path
from gradshard.storage.formats.checksums import CHECKSUM_BYTES, crc32c
from gradshard.storage.formats.chunking import Layout
from gradshard.storage.formats.shard_reader import MISSING_CHUNK, Values


def write_plain_shard(path: Path, cut: Layout, chunks: Iterable[Values]) -> None:
    """Write the file of one shard: it appears whole or, if the chunks end in an exception, not at all.

    Args:
        path: of the file.
        cut: how the rows are cut.
        chunks: the shard's rows, uint8 (n, ...), a chunk at a time; the array's last chunk may be short.
    """
    index = np.full((cut.shard // cut.chunk, 2), MISSING_CHUNK, dtype="<u8")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for number, rows in enumerate(chunks):
            # After the array's last row, a chunk is padded with the fill value, 0.
            rest = bytes((cut.chunk - len(rows)) * math.prod(rows.shape[1:]))
            start = file.tell()
            _write_checked(file, np.ascontiguousarray(rows).reshape(-1), rest)
            index[number] = start, file.tell() - start
        _write_checked(file, index.reshape(-1).view(np.uint8))


def _write_checked(file: BinaryIO, content: Values, rest: bytes = b"") -> None:
    """Write bytes, more bytes, and the CRC-32C of both, little-endian."""
    file.write(content.data)
    file.write(rest)
    file.write(crc32c(rest, crc32c(content)).to_bytes(CHECKSUM_BYTES, "little"))
