"""Reading the files of shards: the index, then chunks, each checked and decoded into memory that is already there.

A reader of our own beside zarr-python, for three reasons: a hole or a missing file must be an error that names its
rows, never the fill value; what a stranger's chunk declares must not decide how much memory it takes; and a chunk must
cost one read of its own bytes. The files are plain Zarr all the same: tests read them by three other libraries.
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import zstd

from storage.signs.bitplanes import Planes
from storage.signs.manifest import StoreSpec

Index = npt.NDArray[np.uint64]

_HOLE = (1 << 64) - 1
_CHECKSUM_BYTES = 4
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass
class DamagedError(Exception):
    """What is wrong with which rows of a shard: ``start`` to ``stop``, counted from the store's first row."""

    what: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"rows {self.start} to {self.stop - 1}: {self.what}"


@dataclass(frozen=True)
class ShardReader:
    """Reads one shard's file of signs."""

    file: BinaryIO
    shard: int
    spec: StoreSpec

    @property
    def rows(self) -> slice:
        """The rows of the shard."""
        return self.spec.cut.shard_rows(self.shard)

    def index(self) -> Index:
        """Where each chunk lies: uint64 (chunks, 2), byte offset and length.

        Raises:
            DamagedError: it is cut off or its checksum is wrong.
        """
        chunks = self.spec.layout.shard // self.spec.layout.chunk
        self.file.seek(0)
        content = self.file.read(16 * chunks + _CHECKSUM_BYTES)
        if len(content) < 16 * chunks + _CHECKSUM_BYTES:
            raise DamagedError("the file is cut off", self.rows.start, self.rows.stop)
        try:
            return np.frombuffer(_checked(content), dtype="<u8").reshape(chunks, 2)
        except ValueError as error:
            raise DamagedError(f"the shard's index: {error}", self.rows.start, self.rows.stop) from error

    def read(self, start: int, stop: int, out: Planes) -> None:
        """Decode the rows ``start`` to ``stop`` of the store, all in this shard, into ``out``, uint8 (n, 2, B).

        Raises:
            DamagedError: a chunk is missing, damaged or no chunk of this store.
        """
        chunk, index = self.spec.layout.chunk, self.index()
        scratch: Planes | None = None
        for first in range(start - start % chunk, stop, chunk):
            low, high = max(first, start), min(first + chunk, stop)
            if (low, high) == (first, first + chunk):
                self._decode(first, index, out[low - start : high - start])
                continue
            if scratch is None:
                scratch = np.empty((chunk, *out.shape[1:]), dtype=np.uint8)
            self._decode(first, index, scratch)
            out[low - start : high - start] = scratch[low - first : high - first]

    def _decode(self, first: int, index: Index, out: Planes) -> None:
        stop = min(first + self.spec.layout.chunk, self.rows.stop)
        offset, size = (int(value) for value in index[(first - self.rows.start) // self.spec.layout.chunk])
        if offset == _HOLE or size == _HOLE:
            raise DamagedError("a chunk was never written", first, stop)
        if size > 2 * out.nbytes + 1024:
            raise DamagedError("a chunk declares an impossible size", first, stop)
        if offset + size > self.file.seek(0, os.SEEK_END):
            raise DamagedError("a chunk: the file is cut off", first, stop)
        self.file.seek(offset)
        try:
            decode(self.file.read(size), out)
        except ValueError as error:
            raise DamagedError(f"a chunk: {error}", first, stop) from error


def decode(content: bytes, out: npt.NDArray[np.uint8]) -> None:
    """Decode one chunk, zstd then crc32c, into contiguous memory of exactly its size.

    Raises:
        ValueError: its checksum is wrong, or it is no chunk of that size.
    """
    frame = _checked(content)
    if _content_size(frame) != out.nbytes:
        raise ValueError(f"it does not decode to {out.nbytes} bytes")
    try:
        zstd.decompress(frame, out.reshape(-1))
    except RuntimeError as error:
        raise ValueError("it does not decode") from error


def _checked(content: bytes) -> bytes:
    """The content without its checksum: CRC-32C, 4 bytes, little-endian."""
    body, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if len(checksum) < _CHECKSUM_BYTES or google_crc32c.value(body) != struct.unpack("<I", checksum)[0]:
        raise ValueError("its checksum is wrong")
    return body


def _content_size(frame: bytes) -> int | None:
    """The size that a zstd frame's header declares (RFC 8878, section 3.1.1.1); none if it declares none."""
    if len(frame) < 5 or frame[:4] != _ZSTD_MAGIC:
        return None
    descriptor = frame[4]
    flag, single_segment, dictionary = descriptor >> 6, descriptor >> 5 & 1, descriptor & 3
    width = (single_segment, 2, 4, 8)[flag]
    if not width:
        return None
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[dictionary]
    size = int.from_bytes(frame[start : start + width], "little")
    return size + 256 if width == 2 else size
