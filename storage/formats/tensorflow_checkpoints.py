"""Checkpoints of TensorFlow in its second format, read without TensorFlow: an index, and files of the tensors' bytes.

The index is a table of LevelDB (its doc/table_format.md), whose values are messages of protocol buffers
(tensorflow/core/protobuf/tensor_bundle.proto).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.checksums import crc32c

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5  # bytes after a block: one says how it is compressed, four are its checksum
_DTYPES: dict[int, np.dtype[np.generic]] = {
    number: np.dtype(name) for number, name in {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}.items()
}


@dataclass(frozen=True)
class _Entry:
    """The place of one tensor's bytes, their type and their checksum."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    sliced: bool = False


def read_tensorflow(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read every tensor of a checkpoint by its variable's name.

    Args:
        path: its index, one of its data files, or the prefix that their names share.

    Raises:
        GradshardError: a file is missing, damaged or of the first format; or a tensor is sliced or not of numbers.
    """
    prefix = _prefix(path)
    index = prefix.with_name(f"{prefix.name}.index")
    if path.is_file() and not index.is_file() and is_tensorflow(path):
        raise GradshardError(
            f"{path} is a checkpoint of TensorFlow's first format: restore it with a Saver of TensorFlow, which then "
            "saves it in the second"
        )
    try:
        entries = dict(_table(index.read_bytes()))
        header = dict(_fields(entries.pop(b"")))
        shards = int(header.get(1, 1))
        found = {key.decode(): _entry(value) for key, value in entries.items()}
    except FileNotFoundError as error:
        raise GradshardError(f"no TensorFlow checkpoint at {path}: {index} is missing") from error
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise GradshardError(f"{index} is not the index of a TensorFlow checkpoint, or is damaged ({error})") from error
    files = [prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}") for shard in range(shards)]
    for file in files:
        if not file.is_file():
            raise GradshardError(f"{file} is missing, which {index} names: fetch the whole checkpoint")
    return {name: _tensor(name, entry, files[entry.shard]) for name, entry in found.items()}


def is_tensorflow(path: Path) -> bool:
    """Tell whether a path is that of a checkpoint of TensorFlow, of either format."""
    prefix = _prefix(path)
    if prefix.with_name(f"{prefix.name}.index").is_file():
        return True
    if not path.is_file() or path.stat().st_size < _FOOTER:
        return False
    with path.open("rb") as file:
        file.seek(-len(_MAGIC), 2)
        return file.read() == _MAGIC


def _prefix(path: Path) -> Path:
    stem, dot, ending = path.name.rpartition(".")
    return path.with_name(stem) if dot and (ending == "index" or ending.startswith("data-")) else path


def _tensor(name: str, entry: _Entry, file: Path) -> NDArray[np.generic]:
    """Read one tensor and check it against its checksum."""
    if entry.sliced or entry.dtype not in _DTYPES:
        kind = "lies in slices" if entry.sliced else f"is of TensorFlow's type {entry.dtype}"
        raise GradshardError(f"{file}: {name} {kind}, which is not read: save whole tensors of numbers")
    with file.open("rb") as stream:
        stream.seek(entry.offset)
        content = stream.read(entry.size)
    dtype = _DTYPES[entry.dtype]
    if len(content) != dtype.itemsize * int(np.prod(entry.shape, dtype=np.int64)) or _masked(content) != entry.checksum:
        raise GradshardError(f"{file} is damaged at {name}: fetch it again")
    found: NDArray[np.generic] = np.frombuffer(content, dtype).reshape(entry.shape)
    return found


def _masked(content: bytes) -> int:
    """Return the checksum as LevelDB stores it."""
    checksum = crc32c(content)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _entry(message: bytes) -> _Entry:
    values: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    sliced = False
    for number, value in _fields(message):
        if number == 2 and isinstance(value, bytes):
            dimensions = [dict(_fields(size)) for kind, size in _fields(value) if kind == 2 and isinstance(size, bytes)]
            shape = tuple(int(dimension.get(1, 0)) for dimension in dimensions)
        elif number == 7:
            sliced = True
        elif isinstance(value, int):
            values[number] = value
    dtype, shard, offset, size, checksum = (values.get(number, 0) for number in (1, 3, 4, 5, 6))
    return _Entry(dtype, shape, shard, offset, size, checksum, sliced)


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table, in order."""
    if content[-len(_MAGIC) :] != _MAGIC:
        raise ValueError("no table")
    footer = content[-_FOOTER:]
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)
    for _, handle in _block(content, footer[position:]):
        yield from _block(content, handle)


def _block(content: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of the block that a handle points to; a key may share the start of the one before."""
    begin, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    block, trailer = content[begin : begin + size], content[begin + size : begin + size + _TRAILER]
    if trailer[0] or _masked(block + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise ValueError("a block is compressed or damaged")
    restarts = int.from_bytes(block[-4:], "little")
    position, end, key = 0, size - 4 * (restarts + 1), b""
    while position < end:
        shared, position = _varint(block, position)
        fresh, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + fresh]
        position += fresh
        yield key, block[position : position + length]
        position += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and value of each field of a message: an integer, or the bytes of a text or message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}[kind]
        content = message[position : position + size]
        yield number, content if kind == 2 else int.from_bytes(content, "little")
        position += size


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Read an integer stored as seven bits per byte; return it and the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
