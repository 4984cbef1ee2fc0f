"""Reading the files of shards: the index, then chunks, each checked and decoded into memory that already exists.

zarr-python does not suffice, for three reasons: a missing chunk or file must be an error that names its rows, never the
fill value; the size that an untrusted chunk declares must not decide how much memory it takes; and a chunk must cost
one read of its own bytes. The files are plain Zarr all the same: tests read them with three other libraries.
"""

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from numcodecs import zstd

from gradshard.storage.formats.checksums import CHECKSUM_BYTES, crc32c
from gradshard.storage.formats.chunking import Layout, group_by_chunk, power_of_two_below

Values = npt.NDArray[np.uint8]
Index = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Check = Callable[[Rows, Values], None]

# No file is so long, and systems refuse offsets of twice this value or more.
_LAST_OFFSET = 1 << 62
# Offset and length, in a shard's index, of a chunk that was never written.
MISSING_CHUNK = (1 << 64) - 1
_WRONG_CHECKSUM = "its checksum is wrong"
_CUT_OFF = "the file is cut off"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# The longest header of a zstd frame.
_HEADER_BYTES = 18
# Uncompressed rows of at least so many bytes are read directly into their places.
_LARGE_ROW_BYTES = 1 << 17
# The bytes that are checked and copied at a time: half of a common second-level cache.
_BLOCK_BYTES = 1 << 19


@dataclass
class DamagedError(Exception):
    """Damage to rows of a shard: ``start`` to ``stop``, counted from the array's first row."""

    what: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"rows {self.start} to {self.stop - 1}: {self.what}"


@dataclass(frozen=True)
class Encoding:
    """Layout of the rows of an array of bytes in its files.

    A shard's file consists of its chunks and their index, which comes first or last. A chunk is one zstd frame or, if
    not ``compressed``, plain bytes, followed by their CRC-32C.
    """

    layout: Layout
    index_first: bool = True
    compressed: bool = True


class Scratch:
    """Memory for one chunk while it is read, reused for the next; each thread needs its own."""

    def __init__(self) -> None:
        self._stored = np.empty(0, dtype=np.uint8)
        self._decoded = np.empty(0, dtype=np.uint8)

    def stored(self, size: int) -> Values:
        """Return memory for the bytes of a chunk as they are in the file."""
        if len(self._stored) < size:
            self._stored = np.empty(size, dtype=np.uint8)
        return self._stored[:size]

    def decoded(self, size: int) -> Values:
        """Return memory for the decoded bytes of a chunk."""
        if len(self._decoded) < size:
            self._decoded = np.empty(size, dtype=np.uint8)
        return self._decoded[:size]


@dataclass(frozen=True)
class ShardReader:
    """Reader of one shard's file."""

    file: BinaryIO
    shard: int
    encoding: Encoding
    scratch: Scratch = field(default_factory=Scratch)

    @property
    def rows(self) -> slice:
        """The rows of the shard."""
        return self.encoding.layout.shard_rows(self.shard)

    def index(self) -> Index:
        """Read where each chunk lies: uint64 (chunks, 2), byte offset and length.

        Raises:
            DamagedError: the index is cut off or its checksum is wrong.
        """
        chunks = self.encoding.layout.shard // self.encoding.layout.chunk
        size = 16 * chunks + CHECKSUM_BYTES
        start = 0 if self.encoding.index_first else self.file.seek(0, os.SEEK_END) - size
        content = np.empty(size, dtype=np.uint8)
        try:
            self._fill(max(start, 0), content)
            return np.frombuffer(_checked(content), dtype="<u8").reshape(chunks, 2)
        except ValueError as error:
            raise DamagedError(f"the shard's index: {error}", self.rows.start, self.rows.stop) from error

    def read(self, start: int, stop: int, out: Values) -> None:
        """Decode the rows ``start`` to ``stop`` of the array, all in this shard, into ``out``; see ``take``."""
        self.take(np.arange(start, stop), out, np.arange(stop - start))

    def take(self, rows: Rows, out: Values, positions: Rows, *, check: Check | None = None) -> None:
        """Decode individual rows of this shard into given places.

        Args:
            rows: their numbers, in ascending order.
            out: uint8 (n, ...), contiguous; row ``rows[i]`` goes to ``out[positions[i]]``.
            positions: as many as rows.
            check: called with some of the rows and their content, uint8 (m, bytes of a row).

        Raises:
            DamagedError: a chunk is missing, damaged or not of this array; then ``out`` may hold anything.
        """
        chunk, index, flat = self.encoding.layout.chunk, self.index(), out.reshape(len(out), -1)
        distinct = bool((np.diff(rows) > 0).all())
        read = self._read_compressed if self.encoding.compressed else self._read_plain
        for number, low, high in group_by_chunk(rows, chunk):
            first, stop = number * chunk, min((number + 1) * chunk, self.rows.stop)
            entry = index[(first - self.rows.start) // chunk]
            offset, size = self._locate(entry, chunk * flat.shape[1], first, stop)
            try:
                read(first, offset, size, _Places(rows[low:high], flat, positions[low:high], check, distinct))
            except ValueError as error:
                raise DamagedError(f"a chunk: {error}", first, stop) from error

    def _locate(self, entry: Index, decoded: int, first: int, stop: int) -> tuple[int, int]:
        """Return the offset and the stored size of a chunk that has ``decoded`` bytes when decoded."""
        offset, size = int(entry[0]), int(entry[1])
        if offset == MISSING_CHUNK or size == MISSING_CHUNK:
            raise DamagedError("a chunk was never written", first, stop)
        if size > 2 * decoded + 1024:
            raise DamagedError("a chunk declares an impossible size", first, stop)
        if offset > _LAST_OFFSET:
            raise DamagedError("a chunk declares an impossible place", first, stop)
        return offset, size

    def _read_compressed(self, first: int, offset: int, size: int, places: "_Places") -> None:
        chunk = self.encoding.layout.chunk
        stored, decoded = self.scratch.stored(size), self.scratch.decoded(chunk * places.row_bytes)
        self._fill(offset, stored)
        decode(stored, decoded)
        places.put(first, decoded.reshape(chunk, -1))

    def _read_plain(self, first: int, offset: int, size: int, places: "_Places") -> None:
        chunk = self.encoding.layout.chunk
        if size != chunk * places.row_bytes + CHECKSUM_BYTES:
            raise ValueError(f"it does not hold {chunk * places.row_bytes} bytes")
        straight = places.straight() if places.row_bytes >= _LARGE_ROW_BYTES and self._positional else None
        if straight is None:
            found, expected = self._blocks(first, offset, places)
        else:
            found, expected = self._straight(first, offset, straight)
        if found != int.from_bytes(expected, "little"):
            raise ValueError(_WRONG_CHECKSUM)

    def _straight(self, first: int, offset: int, straight: dict[int, Values]) -> tuple[int, Values]:
        """Read a chunk's rows into their places at once: threads that read row by row would often wait for one another.

        Return the computed checksum and the stored one.
        """
        chunk, row_bytes = self.encoding.layout.chunk, len(next(iter(straight.values())))
        spare = self.scratch.decoded(chunk * row_bytes + CHECKSUM_BYTES)
        unwanted, stored = spare[CHECKSUM_BYTES:].reshape(chunk, row_bytes), spare[:CHECKSUM_BYTES]
        rows = [straight.get(first + number, unwanted[number]) for number in range(chunk)]
        self._fill(offset, *rows, stored)
        checksum = 0
        for values in rows:
            checksum = crc32c(values, checksum)
        return checksum, stored

    def _blocks(self, first: int, offset: int, places: "_Places") -> tuple[int, Values]:
        """Do the same in blocks of rows, which stay in the cache until they are checked and copied to their places."""
        chunk, row_bytes, checksum = self.encoding.layout.chunk, places.row_bytes, 0
        step = self._step(row_bytes)
        block, stored = self.scratch.decoded(step * row_bytes), np.empty(CHECKSUM_BYTES, dtype=np.uint8)
        for start in range(0, chunk, step):
            last = (stored,) if start + step == chunk else ()
            self._fill(offset + start * row_bytes, block, *last)
            checksum = crc32c(block, checksum)
            places.put(first + start, block.reshape(step, -1))
        return checksum, stored

    def _step(self, row_bytes: int) -> int:
        """Return the number of rows of a block."""
        return math.gcd(self.encoding.layout.chunk, power_of_two_below(_BLOCK_BYTES / row_bytes))

    @property
    def _positional(self) -> bool:
        return isinstance(self.file, io.FileIO) and hasattr(os, "preadv")

    def _fill(self, offset: int, *memory: Values) -> None:
        """Read from ``offset`` on into one array after the other.

        This takes one system call where possible: during each call another thread may take Python's lock, and waiting
        to get it back takes longer than a short call.
        """
        if self._positional:
            found = os.preadv(self.file.fileno(), [values.data for values in memory], offset)
        else:
            self.file.seek(offset)
            found = sum(self.file.readinto(values) for values in memory)  # type: ignore[attr-defined]
        if found < sum(len(values) for values in memory):
            raise ValueError(_CUT_OFF)


@dataclass(slots=True)
class _Places:
    """Destination of a chunk's wanted rows, see ``ShardReader.take``; ``distinct`` if none is wanted twice."""

    rows: Rows
    out: Values
    positions: Rows
    check: Check | None
    distinct: bool

    @property
    def row_bytes(self) -> int:
        return int(self.out.shape[1])

    def straight(self) -> dict[int, Values] | None:
        """Return the place of each row; none if a row has two places or rows must be checked."""
        if self.check is not None or not self.distinct:
            return None
        return {row: self.out[position] for row, position in zip(self.rows.tolist(), self.positions, strict=True)}

    def put(self, start: int, values: Values) -> None:
        """Copy the wanted ones of ``values``, the rows from ``start`` on, to their places."""
        low, high = self.rows.searchsorted(start), self.rows.searchsorted(start + len(values))
        if low == high:
            return
        if high - low < len(values) or not self.distinct:
            values = values[self.rows[low:high] - start]
        if self.check is not None:
            self.check(self.rows[low:high], values)
        # As items of an opaque type, because NumPy copies each of those at once.
        row = np.dtype((np.void, self.row_bytes))
        self.out.view(row)[self.positions[low:high], 0] = values.view(row)[:, 0]


def decode(content: bytes | Values, out: Values) -> None:
    """Decode one chunk, a zstd frame and its CRC-32C, into contiguous memory of exactly its size.

    Raises:
        ValueError: its checksum is wrong, or it is no chunk of that size.
    """
    frame = _checked(content)
    if _content_size(bytes(frame[:_HEADER_BYTES])) != out.nbytes:
        raise ValueError(f"it does not decode to {out.nbytes} bytes")
    try:
        zstd.decompress(frame, out.reshape(-1))
    except RuntimeError as error:
        raise ValueError("it does not decode") from error


def _checked(content: bytes | Values) -> bytes | Values:
    """Check the content against the CRC-32C at its end, 4 bytes, little-endian, and return it without that."""
    body, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if len(checksum) < CHECKSUM_BYTES or crc32c(body) != int.from_bytes(checksum, "little"):
        raise ValueError(_WRONG_CHECKSUM)
    return body


def _content_size(frame: bytes) -> int | None:
    """Return the size that a zstd frame's header declares (RFC 8878, section 3.1.1.1); none if it declares none."""
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
