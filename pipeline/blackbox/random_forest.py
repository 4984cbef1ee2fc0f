"""A random forest, which has no gradient to attack, and examples that transfer to it (appendix C)."""

from typing import Any

import numpy as np
import numpy.typing as npt


class Forest:
    """A random forest over pixels; ``trees`` trees, the same for the same seed."""

    def __init__(self, trees: int, *, seed: int) -> None:
        from sklearn.ensemble import RandomForestClassifier  # a second, which only those pay who use it

        self._forest: Any = RandomForestClassifier(n_estimators=trees, random_state=seed, n_jobs=-1)

    def fit(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> None:
        """Train on images (n, C, H, W), taken as pixels in [0, 1], and labels (n,)."""
        self._forest.fit(_pixels(images), labels)

    def errors(self, images: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> int:
        """Count the images (n, C, H, W) in [0, 1] that it classifies wrong."""
        return int((self._forest.predict(images.reshape(len(images), -1).astype(np.float32)) != labels).sum())


def _pixels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
