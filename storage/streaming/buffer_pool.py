"""Memory that is lent for arrays, and reused once nobody holds any part of an array.

Fresh memory is expensive: the system zeroes every page when it is first touched, which for large rows takes as long as
reading them.
"""

import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.uint8]


class _Lease:
    """Base object of a lent array, which NumPy keeps alive as long as any view of the array."""

    def __init__(self, block: Block, shape: tuple[int, ...]) -> None:
        self._block = block
        self.__array_interface__: dict[str, Any] = {**block.__array_interface__, "shape": shape, "strides": None}


class BufferPool:
    """Lender of blocks of at least ``size`` bytes; it allocates one only if all others are held or too small."""

    def __init__(self, size: int = 0) -> None:
        self._size = size
        self._free: list[Block] = []

    def array(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Return a uint8 array of the given shape with arbitrary content."""
        self._size = max(self._size, math.prod(shape))
        block = self._free.pop() if self._free else np.empty(self._size, dtype=np.uint8)
        if len(block) < self._size:
            block = np.empty(self._size, dtype=np.uint8)
        loan = _Lease(block, shape)
        weakref.finalize(loan, self._free.append, block).atexit = False
        return np.asarray(loan)
