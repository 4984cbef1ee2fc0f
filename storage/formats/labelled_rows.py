"""The interface of labelled images, whether from a prepared dataset or from a user's own source."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


class LabelledRows(Protocol):
    """Rows in one order, such as a split of a prepared dataset: images uint8 (N, C, H, W), labels int64 (N,)."""

    @property
    def dataset(self) -> str:
        """The dataset's name."""

    @property
    def classes(self) -> int:
        """The number of classes."""

    @property
    def digest(self) -> str:
        """The digest of images, labels and their order."""

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""

    @property
    def chunk(self) -> int:
        """The number of rows that are best read together."""

    def __len__(self) -> int:
        """Count the rows."""

    def read_images(self, start: int, stop: int) -> Images:
        """Read the images of rows."""

    def take_images(self, rows: Numbers) -> Images:
        """Read the images of individual rows by number."""

    def read_labels(self, start: int = 0, stop: int | None = None) -> Numbers:
        """Read the labels of rows."""


class Splits(Protocol):
    """A dataset with rows for training and for testing, either of which may be empty."""

    @property
    def classes(self) -> int:
        """The number of classes."""

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""

    @property
    def train(self) -> LabelledRows:
        """The rows for training."""

    @property
    def test(self) -> LabelledRows:
        """The rows for testing."""
