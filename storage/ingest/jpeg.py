"""Damage to JPEG files that libjpeg tolerates: pixels whose codes were overwritten.

If the codes do not end with the image, the decoder fills missing pixels with grey, or ignores surplus codes; it only
warns, and Pillow ignores the warning. Two kinds of damage are looked for:

- stray markers among the codes: in codes a byte FF is followed by 00, so markers are found without decoding;
- codes that end too late or too early, as almost all do once a block of them was overwritten: a sequential image in one
  scan is decoded once more, at an eighth of the size, without the end marker.
"""

import io
import re
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_START, _END, _SCAN, _RESTART_INTERVAL = 0xD8, 0xD9, 0xDA, 0xDD
_SEQUENTIAL = {0xC0, 0xC1}
_RESTARTS = range(0xD0, 0xD8)
# What may stand between two scans: tables, the height, application data, comments.
_BETWEEN = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
# Some programs write the end twice, or pad the file and write it again: no codes.
_PADDING = b"\x00\xff"

# The decoder reads some bytes ahead; it gets these, which are no codes.
_AHEAD = b"\xff\x00" * 16
# Some cameras put a few bytes behind the codes.
_SPARE_BYTES = 64
_SCALE = 8


def damage(content: bytes) -> str | None:
    """Describe the damage to the pixels of a JPEG file that Pillow could decode, if any is found."""
    try:
        scans = _scans(content)
    except _StrayError as error:
        return str(error)
    if len(scans) == 1 and scans[0].sequential:
        return _unlike_length(content, scans[0])
    return None


class _StrayError(Exception):
    """Bytes in a place where they are not allowed."""


@dataclass(frozen=True)
class _Scan:
    """Bounds of a scan's codes, and whether the image is sequential, that is, not progressive."""

    begin: int
    end: int
    sequential: bool


def _scans(content: bytes) -> list[_Scan]:
    offset, interval, sequential = 2, 0, False
    scans: list[_Scan] = []
    while found := _MARKER.search(content, offset):
        marker, after = found[1][0], found.end()
        if scans and found.start() != offset:
            raise _StrayError("there are foreign bytes between the parts of its pixels")
        if marker == _END:
            _check_end(content[after:])
            break
        if scans and marker != _SCAN and marker not in _BETWEEN:
            raise _StrayError(f"there is a stray marker FF{marker:02X} in its pixels")
        if after + 4 > len(content):
            break
        length, first = struct.unpack_from(">HH", content, after)
        offset = after + length
        if marker in _SEQUENTIAL:
            sequential = True
        elif marker == _RESTART_INTERVAL:
            interval = first
        elif marker == _SCAN:
            end = _scan_end(content, offset, restarts=interval > 0)
            scans.append(_Scan(offset, end, sequential))
            offset = end
    return scans


def _scan_end(content: bytes, begin: int, *, restarts: bool) -> int:
    """Find the marker after a scan and its restart markers, which count from 0 to 7 cyclically."""
    for number, found in enumerate(_MARKER.finditer(content, begin)):
        if found[1][0] not in _RESTARTS:
            return found.start()
        if not restarts or found[1][0] != _RESTARTS[number % len(_RESTARTS)]:
            raise _StrayError("the restart markers of its pixels are out of order")
    return len(content)


def _check_end(rest: bytes) -> None:
    """Refuse a second end of the same image after codes; anything else may follow the first."""
    start, end = bytes([0xFF, _START]), bytes([0xFF, _END])
    if rest.endswith(end) and start not in rest and rest.replace(end, b"").strip(_PADDING):
        raise _StrayError("there is an end marker in the middle of its pixels")


def _unlike_length(content: bytes, scan: _Scan) -> str | None:
    spare = max(scan.begin, scan.end - _SPARE_BYTES)
    parts = (content[:spare], content[spare : scan.end] + _AHEAD)
    # A last row of the same colour as the canvas is recognised on a canvas of another colour.
    early, late = _reach_the_last_row(content, parts, unpainted=0)
    if not late:
        early, late = _reach_the_last_row(content, parts, unpainted=255)
    if early:
        return "the codes of its pixels go on behind its last row"
    return None if late else "the codes of its pixels end before its last row"


def _reach_the_last_row(content: bytes, parts: tuple[bytes, bytes], *, unpainted: int) -> list[bool]:
    """Tell whether the decoder has painted an image's last row after each part, at an eighth of the size."""
    with Image.open(io.BytesIO(content)) as header:
        mode, width, height = header.mode, -(-header.width // _SCALE), -(-header.height // _SCALE)
        arguments = header.tile[0].args
    canvas = Image.new(mode, (width, height), (unpainted,) * Image.getmodebands(mode))
    # Pillow's public interface to a decoder takes no parts, and fills what was not decoded.
    decoder = Image._getdecoder(mode, "jpeg", arguments, (_SCALE, 0))
    decoder.setimage(canvas.im, (0, 0, width, height))
    rest, reached = b"", []
    for part in parts:
        rest += part
        rest = rest[max(0, decoder.decode(rest)[0]) :]
        reached.append(bool((np.asarray(canvas)[-1] != unpainted).any()))
    return reached
