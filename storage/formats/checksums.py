"""CRC-32C, the checksum of chunks, computed without blocking other threads."""

import numpy as np
import numpy.typing as npt
from awscrt import checksums

CHECKSUM_BYTES = 4


def crc32c(content: bytes | npt.NDArray[np.uint8], before: int = 0) -> int:
    """Return the checksum of bytes; ``before`` is the checksum of the bytes that precede them."""
    return int(checksums.crc32c(content, before))
