"""Rows held back from training, and a model's errors on them, epoch by epoch.

Training against attacks can overfit to them: the error of attacked images that were not trained on rises again while
that of the others still falls (Rice et al. 2020). Training on attacks of one step can collapse within an epoch: the
model is right under the attack it is trained on, and wrong under attacks of more steps (Wong et al. 2020, section 5.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradshard.storage.streaming.shuffle import Rows

# A model collapses if its error under own PGD was below the first and is above the second. If its error on clean images
# is at least the third, it is just a bad model.
_ROBUST, _COLLAPSED, _BAD = 0.7, 0.95, 0.5


@dataclass(frozen=True)
class HeldBackErrors:
    """Error rates on the held-back rows after an epoch: of clean images, and under two attacks.

    ``transfer_error`` is the share of images that the signs of at least one store fool, none without stores;
    ``pgd_error`` is the share that the model's own PGD fools.
    """

    epoch: int
    clean_error: float
    transfer_error: float | None
    pgd_error: float

    @property
    def rates(self) -> dict[str, float]:
        """The measured ones, by name."""
        found = {"clean_error": self.clean_error, "transfer_error": self.transfer_error, "pgd_error": self.pgd_error}
        return {name: rate for name, rate in found.items() if rate is not None}

    @property
    def judged(self) -> float:
        """The error rate that a model is judged by: under its stores' attacks if it has stores, else under its own."""
        return self.pgd_error if self.transfer_error is None else self.transfer_error


def best(found: Sequence[HeldBackErrors]) -> HeldBackErrors:
    """Return the errors of the epoch that is judged best, of several the first."""
    return min(found, key=lambda errors: (errors.judged, errors.epoch))


class Collapse(NamedTuple):
    """Catastrophic overfitting: the epoch that ended in it, the own-PGD error rate after it, and the least before."""

    epoch: int
    pgd_error: float
    least_before: float


def catastrophic_overfitting(found: Sequence[HeldBackErrors]) -> Collapse | None:
    """Find the first epoch after which own PGD errs above 95 %, though it had been below 70 %, and clean images do not.

    A model that is wrong on at least half of the clean images has not learnt or has diverged, and does not count.
    """
    least = 1.0
    for errors in found:
        if errors.pgd_error > _COLLAPSED and least < _ROBUST and errors.clean_error < _BAD:
            return Collapse(errors.epoch, errors.pgd_error, least)
        least = min(least, errors.pgd_error)
    return None


def draw_rows(rows: int, count: int, *, seed: int) -> Rows:
    """Draw ``count`` of ``rows`` rows to be held back, sorted."""
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    return np.sort(draws.permutation(rows)[:count])
