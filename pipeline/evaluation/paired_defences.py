"""Comparison of the errors of two defences on the same seeds and images, with both kinds of variance.

The difference of two defences' errors, for each seed and image, has the same two-way variance as an error rate
(`seed_variance.py`); what images and seeds have in common cancels. An interval over the images of one training run, or
McNemar's test, tells whether two trained *models* differ; this tells whether the two ways of training them do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gradshard.pipeline.evaluation.seed_variance import CrossedMean, checked_errors, crossed_mean
from gradshard.pipeline.evaluation.statistics import holm
from gradshard.storage.errors import GradshardError

Finding = Literal["lower", "higher", "no difference shown", "one seed: no claim about training"]

ONE_SEED: Finding = "one seed: no claim about training"
_SIGNIFICANT = 0.05
# Smaller p-values say nothing more, and quantiles of t far beyond are not computed exactly.
_SMALLEST = 1e-100


@dataclass(frozen=True)
class PairedDifference:
    """The error rate of the first of two defences less that of the second, in [-1, 1].

    ``interval`` is the 95 % interval of this comparison alone, ``p`` the p-value of no difference; both are none for a
    single seed. ``corrected_p`` equals ``p`` until `correct_for_number` corrects it for the number of comparisons.
    """

    difference: float
    interval: tuple[float, float] | None
    p: float | None
    corrected_p: float | None
    seeds: int
    images: int

    @property
    def finding(self) -> Finding:
        """Tell whether the first errs less (``lower``) or more (``higher``), if that is unlikely to be chance."""
        if self.corrected_p is None:
            return ONE_SEED
        if self.corrected_p >= _SIGNIFICANT:
            return "no difference shown"
        return "lower" if self.difference < 0 else "higher"


def paired_difference(first: npt.ArrayLike, second: npt.ArrayLike) -> PairedDifference:
    """Compare two defences by the images that each one's models got wrong.

    Args:
        first: bool or 0 and 1, shape (seeds, images).
        second: the same; row s is of the same seed and column i of the same image.

    Raises:
        GradshardError: the shapes differ or are not those of errors, or there is one image alone.
    """
    one, other = checked_errors(first), checked_errors(second)
    if one.shape != other.shape:
        raise GradshardError(
            f"errors of two defences have the shapes {one.shape} and {other.shape}: "
            "compare them on the seeds and images that both have"
        )
    seeds, images = one.shape
    _check_images(images)
    if seeds == 1:
        return PairedDifference(float(one.mean() - other.mean()), None, None, None, seeds, images)
    return _compared(crossed_mean(one - other))


def paired_difference_of_rates(first: Sequence[float], second: Sequence[float], *, images: int) -> PairedDifference:
    """Compare two defences of which only the error rates are known, not the errors image by image.

    The images' share of the variance is then unknown. It is at most that of errors which never fall on the same image:
    a mean over seeds is within 0 and 1 on every image, so that its variance is at most p (1 - p), and standard
    deviations at most add up. With this bound the interval is never narrower than that of `paired_difference`.

    Args:
        first: the error rate of every seed, in [0, 1].
        second: the same, in the same order of seeds.
        images: the number of test images.

    Raises:
        GradshardError: there is one image alone, or more rates of one defence than of the other.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    _check_images(images)
    if one.shape != other.shape:
        raise GradshardError(
            f"{len(one)} error rates of one defence and {len(other)} of the other: compare them on the same seeds"
        )
    difference, seeds = float(one.mean() - other.mean()), len(one)
    if seeds == 1:
        return PairedDifference(difference, None, None, None, seeds, images)
    between = np.asarray(np.var(one - other, ddof=1) / seeds)
    of_images = sum(math.sqrt(rate * (1 - rate)) for rate in (one.mean(), other.mean())) ** 2 / (images - 1)
    return _compared(CrossedMean(np.asarray(difference), between, np.asarray(of_images), between, seeds, images))


def correct_for_number(comparisons: Sequence[PairedDifference]) -> list[PairedDifference]:
    """Return the same comparisons with p-values corrected for the number of those that have one (Holm 1979)."""
    corrected = iter(holm([found.p for found in comparisons if found.p is not None]))
    return [found if found.p is None else replace(found, corrected_p=next(corrected)) for found in comparisons]


def tied_for_best_over_seeds(defences: Sequence[npt.ArrayLike]) -> list[bool]:
    """Tell which of several defences are not shown to err more than the one with the lowest mean.

    Each other one is compared with it, and p-values are corrected for the number of comparisons. With one seed all are
    tied: none is shown to err more.

    Args:
        defences: the errors of each, bool or 0 and 1, shape (seeds, images), on the same seeds and images.

    Raises:
        GradshardError: the shapes differ, or are not those of errors.
    """
    best = min(range(len(defences)), key=lambda at: float(np.mean(np.asarray(defences[at]))))
    others = [at for at in range(len(defences)) if at != best]
    compared = correct_for_number([paired_difference(defences[at], defences[best]) for at in others])
    worse = {at for at, found in zip(others, compared, strict=True) if found.finding == "higher"}
    return [at not in worse for at in range(len(defences))]


def _check_images(images: int) -> None:
    if images < 2:
        raise GradshardError("errors on one image alone do not show how images differ: compare two images at least")


def _compared(found: CrossedMean) -> PairedDifference:
    """Return the interval and p-value of a mean difference."""
    difference, margin = float(found.mean), float(found.margin())
    interval = max(-1.0, difference - margin), min(1.0, difference + margin)
    p = _p_value(found, abs(difference))
    return PairedDifference(difference, interval, p, p, found.seeds, found.images)


def _p_value(found: CrossedMean, distance: float) -> float:
    """Find, by Brent's method, the p at which the interval of confidence 1 - p just reaches 0.

    The interval narrows as p grows.
    """
    from scipy.optimize import brentq

    if distance == 0:
        return 1.0

    def beyond(log_p: float) -> float:
        return float(found.margin(math.exp(log_p))) - distance

    if beyond(math.log(_SMALLEST)) <= 0:
        return _SMALLEST
    return math.exp(brentq(beyond, math.log(_SMALLEST), 0.0))
