"""Images that are decoded row by row on demand, and need not fit into memory."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RowImages:
    """Stand-in for an array uint8 (N, C, H, W) that a dataset is written from: slices of it are decoded.

    ``decode`` gives the images of a range of rows, uint8 (n, C, H, W), or raises a GradshardError.
    """

    rows: int
    sample_shape: tuple[int, ...]
    decode: Callable[[range], Pixels]
    dtype: np.dtype[np.uint8] = field(default=np.dtype(np.uint8), init=False)

    def __len__(self) -> int:
        return self.rows

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (N, C, H, W), of which no more than a slice is ever in memory."""
        return (self.rows, *self.sample_shape)

    @property
    def ndim(self) -> int:
        """The number of dimensions of the whole array: 4 if it can make a dataset."""
        return len(self.shape)

    def __getitem__(self, rows: slice) -> Pixels:
        """Decode rows, uint8 (n, C, H, W)."""
        return self.decode(range(*rows.indices(self.rows)))
