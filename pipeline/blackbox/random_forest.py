"""A random forest, which has no gradient to attack, and examples that transfer to it (appendix C)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.types import Gradient


class Forest:
    """A random forest of ``trees`` trees over pixels, the same for the same seed."""

    def __init__(self, trees: int, *, seed: int) -> None:
        from sklearn.ensemble import RandomForestClassifier  # takes a second, which only users of a forest pay

        self._forest: Any = RandomForestClassifier(n_estimators=trees, random_state=seed, n_jobs=-1)

    def fit(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> None:
        """Train on images (n, C, H, W), taken as pixels in [0, 1], and labels (n,)."""
        self._forest.fit(_pixels(images), labels)

    def wrong(self, images: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return which of the images (n, C, H, W) in [0, 1] the forest classifies wrong, bool (n,)."""
        predicted: npt.NDArray[np.integer] = self._forest.predict(images.reshape(len(images), -1).astype(np.float32))
        found: npt.NDArray[np.bool_] = predicted != labels
        return found


@dataclass(frozen=True)
class TransferCounts:
    """FGSM examples of a source that fool a forest: of all, of images it had right, and of those that fool the source.

    The paper says "transfer at a rate of 99 %" without saying of which of these.
    """

    epsilon: float
    errors: int
    n: int
    errors_of_right: int
    right: int
    errors_of_fooling: int
    fooling: int


def transfer_counts(
    forest: Forest,
    source: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilons: Sequence[float],
    gradient: Gradient = "exact",
) -> list[TransferCounts]:
    """Count the FGSM examples of a source that a forest classifies wrong.

    Args:
        forest: a trained forest.
        source: in eval mode.
        images: (n, C, H, W) in [0, 1].
        labels: the true ones, int64 (n,).
        epsilons: of FGSM, in pixel units.
        gradient: which gradient of the source.

    Returns:
        The counts of each epsilon.
    """

    def signs_of(rows: slice) -> Tensor:
        return input_gradient(source, images[rows], labels[rows], gradient=gradient)[0].sign()

    signs = torch.cat(in_microbatches(signs_of, images, source))
    truth = labels.cpu().numpy()
    right = ~forest.wrong(images.cpu().numpy(), truth)
    counts = []
    for epsilon in epsilons:
        adversarial = perturb(images, signs, epsilon)
        wrong = forest.wrong(adversarial.cpu().numpy(), truth)
        fooling = _fooled(source, adversarial, labels)
        shares = (wrong, wrong & right, right, wrong & fooling, fooling)
        errors, of_right, had_right, of_fooling, fool = (int(share.sum()) for share in shares)
        counts.append(TransferCounts(epsilon, errors, len(truth), of_right, had_right, of_fooling, fool))
    return counts


def _fooled(model: nn.Module, images: Tensor, labels: Tensor) -> npt.NDArray[np.bool_]:
    with torch.no_grad():
        predicted = torch.cat(in_microbatches(lambda rows: model(images[rows]).argmax(1), images, model))
    fooled: npt.NDArray[np.bool_] = (predicted != labels).cpu().numpy()
    return fooled


def _pixels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
