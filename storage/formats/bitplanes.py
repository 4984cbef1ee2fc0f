"""Signs as two bit planes: the encoding of the sign store.

Plane 0 says where a sign is +1, plane 1 where it is 0; both most significant bit first, padding bits 0, so that
``sign = 2 * plane0 + plane1 - 1``. The pair (1, 1) is illegal: it is what the fill value 255 reads as, so rows that
were never written decode to 2 and cannot be taken for zeros.
"""

import numpy as np
import numpy.typing as npt

Planes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer]

FILL_BYTE = 255
UNWRITTEN = 2


def packed_bytes(pixels: int) -> int:
    """Return the bytes of one plane of ``pixels`` signs."""
    return -(-pixels // 8)


def pack(signs: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Pack signs, int8 (n, pixels) of -1, 0 and +1, into planes, uint8 (n, 2, ceil(pixels / 8))."""
    planes = np.empty((len(signs), 2, packed_bytes(signs.shape[1])), dtype=np.uint8)
    planes[:, 0] = np.packbits(signs > 0, axis=-1)
    planes[:, 1] = np.packbits(signs == 0, axis=-1)
    return planes


def unpack(planes: npt.NDArray[np.uint8], pixels: int) -> npt.NDArray[np.int8]:
    """Unpack planes, uint8 (n, 2, ceil(pixels / 8)), into signs, int8 (n, pixels); 2 where nothing was written."""
    bits = np.unpackbits(planes, axis=-1, count=pixels).view(np.int8)
    signs: npt.NDArray[np.int8] = 2 * bits[:, 0] + bits[:, 1] - 1
    return signs


def illegal_rows(planes: npt.NDArray[np.uint8], pixels: int) -> npt.NDArray[np.int64]:
    """Return the indices of rows that no ``pack`` can have written: an illegal pair or a padding bit that is set."""
    both = planes[:, 0] & planes[:, 1]
    unused = (1 << (packed_bytes(pixels) * 8 - pixels)) - 1
    padding = planes[:, :, -1:] & unused if unused else planes[:, :, :0]
    # One maximum over all rows is several times faster than one per row, and nearly always 0.
    if not both.max(initial=0) and not padding.max(initial=0):
        return np.empty(0, dtype=np.int64)
    rows: npt.NDArray[np.int64] = np.flatnonzero(both.any(axis=-1) | padding.any(axis=(1, 2)))
    return rows
