"""The bytes of a shard's file: its index of chunks, and the rows of a chunk."""

import struct

import google_crc32c
import numpy as np

from gradshard.storage.formats.manifest import StoreSpec


def index_of(content: bytes, spec: StoreSpec) -> np.ndarray:
    chunks = spec.layout.shard // spec.layout.chunk
    return np.frombuffer(content[: 16 * chunks], dtype="<u8").reshape(chunks, 2).copy()


def with_index(content: bytes, index: np.ndarray) -> bytes:
    """Return the file of a shard with another index and a right checksum."""
    body = index.astype("<u8").tobytes()
    return body + struct.pack("<I", google_crc32c.value(body)) + content[len(body) + 4 :]


def chunk_rows(spec: StoreSpec, shard: int, chunk: int) -> tuple[int, int]:
    """Return the first and last row of a chunk."""
    rows = spec.cut.shard_rows(shard)
    first = rows.start + chunk * spec.layout.chunk
    return first, min(first + spec.layout.chunk, rows.stop) - 1
