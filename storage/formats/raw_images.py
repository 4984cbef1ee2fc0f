"""Images of one raw file, compressed or not, read some rows at a time; they need not fit into memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.scaling import to_bytes

Pixels = npt.NDArray[np.uint8]

BROKEN = "it was changed while it was read, or is damaged: give a whole one"


@dataclass
class RawImages:
    """Stand-in for an array uint8 (N, C, H, W) that a dataset is written from: slices of it are read from a file.

    Slices in ascending order read the file once, which matters if it is compressed. It stays open from the first read
    until the last row is read. Numbers of a ``stored_dtype`` other than uint8 become bytes by ``scale``.
    """

    what: str
    opener: Callable[[], BinaryIO]
    offset: int
    stored_shape: tuple[int, ...]
    arrange: Callable[[Pixels], Pixels]
    stored_dtype: "np.dtype[Any]" = field(default=np.dtype(np.uint8))
    scale: float | None = None
    dtype: np.dtype[np.uint8] = field(default=np.dtype(np.uint8), init=False)
    _stream: BinaryIO | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return self.stored_shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (N, C, H, W), of which no more than a slice is ever in memory."""
        return (len(self), *self.arrange(np.zeros((1, *self.stored_shape[1:]), dtype=np.uint8)).shape[1:])

    @property
    def ndim(self) -> int:
        """The number of dimensions of the whole array: 4 if it can make a dataset."""
        return len(self.shape)

    def __getitem__(self, rows: slice) -> Pixels:
        """Read rows, uint8 (n, C, H, W).

        Raises:
            GradshardError: the file ends before these rows or is damaged, or its scaled numbers are not bytes.
        """
        start, stop, _ = rows.indices(len(self))
        sample = int(np.prod(self.stored_shape[1:], dtype=object)) * self.stored_dtype.itemsize
        stream = self._stream = self._stream or self.opener()
        try:
            stream.seek(self.offset + start * sample)
            content = stream.read((stop - start) * sample)
        # The errors of gzip, zlib and zipfile have no class in common.
        except Exception as error:
            raise GradshardError(f"{self.what} cannot be read on ({error}): {BROKEN}") from error
        if len(content) != (stop - start) * sample:
            raise GradshardError(f"{self.what} ends before row {stop}: {BROKEN}")
        if stop == len(self):
            stream.close()
            self._stream = None
        values = np.frombuffer(content, dtype=self.stored_dtype).reshape(stop - start, *self.stored_shape[1:])
        return self.arrange(to_bytes(values, self.scale, first_row=start, where=self.what))
