"""Checks of PNG files that Pillow omits, that all rows are there and whole; and a fix of the transparent colour."""

import math
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

_SIGNATURE_BYTES = 8
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row, and steps, of the passes of an interlaced file.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BLOCK_BYTES = 1 << 20


def damage(content: bytes) -> str | None:
    """Describe the damage to the pixels of a PNG file that Pillow could decode, if there is any."""
    expected, found, inflate = 0, 0, zlib.decompressobj()
    for kind, data, checksum in _chunks(content):
        if kind == b"IHDR":
            expected = _pixel_bytes(data)
        elif kind == b"IDAT":
            if zlib.crc32(data, zlib.crc32(kind)) != checksum:
                return "the checksum of its pixels is wrong"
            try:
                found += _inflated(inflate, data, expected - found + _BLOCK_BYTES)
            except zlib.error as error:
                return f"its pixels are damaged ({error})"
    return "some of its rows are missing" if found < expected else None


def mend_colour_key(image: Image.Image, content: bytes) -> None:
    """Scale the transparent colour, which Pillow gives as it is stored, to the range of the decoded pixels.

    Pillow spreads pixels of fewer than 8 bits to 8 bits, and keeps the upper 8 bits of 16-bit colours.
    """
    key, depth = image.info.get("transparency"), _depth(content)
    if image.mode == "L" and depth < 8 and isinstance(key, int):
        image.info["transparency"] = key * 255 // ((1 << depth) - 1)
    elif image.mode == "RGB" and depth == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(part >> 8 for part in key)


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Yield the kind, content and checksum of each chunk, up to the first incomplete one."""
    view, offset = memoryview(content), _SIGNATURE_BYTES
    while offset + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, offset)
        end = offset + 8 + length
        if end + 4 > len(content):
            return
        yield kind, view[offset + 8 : end], struct.unpack_from(">I", content, end)[0]
        offset = end + 4


def _inflated(inflate: "zlib._Decompress", data: memoryview, limit: int) -> int:
    """Count the bytes that compressed data expand to, up to a little more than a limit, without keeping them."""
    found = len(inflate.decompress(data, _BLOCK_BYTES))
    while inflate.unconsumed_tail and found < limit:
        found += len(inflate.decompress(inflate.unconsumed_tail, _BLOCK_BYTES))
    return found


def _pixel_bytes(header: memoryview) -> int:
    """Compute the number of bytes of all rows, each with its filter byte."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(math.ceil((width - x) / dx), math.ceil((height - y) / dy)) for x, y, dx, dy in passes]
    return sum(rows * (1 + math.ceil(columns * depth * _CHANNELS[kind] / 8)) for columns, rows in sizes if columns > 0)


def _depth(content: bytes) -> int:
    """Read the number of bits per sample, which follows width and height in the header."""
    return content[_SIGNATURE_BYTES + 8 + 8]
