"""CRC-32C, the checksum of chunks, computed while other threads run."""

import numpy as np
import numpy.typing as npt
from awscrt import checksums

CHECKSUM_BYTES = 4


def crc32c(content: bytes | npt.NDArray[np.uint8], before: int = 0) -> int:
    """Return the checksum of bytes that follow others, whose checksum is ``before``."""
    return int(checksums.crc32c(content, before))
