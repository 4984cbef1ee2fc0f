"""Error rates of a training procedure: several seeds, all tested on the same images.

Seeds and images are crossed. With y[s, i] = 1 where the model of seed s errs on image i,

    y[s, i] = μ + a[s] + b[i] + e[s, i],    Var(mean of y) = σa² / S + σb² / I + σe² / (S I)

for S seeds and I images, whatever the distributions are, if both are drawn at random (the two-way decomposition of
Hoeffding 1948). The mean squares of a two-way analysis of variance estimate all three without bias; docs/statistics.md
has the formulae, the reasons for them, and how often the intervals hold.
"""

import statistics
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradshard.pipeline.evaluation.statistics import Z95, score_interval
from gradshard.storage.errors import GradshardError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CrossedMean:
    """Means over seeds and images, with the parts of their variance; the arrays have one shape, which may be any.

    ``seed_variance`` estimates σa² / S, the share of the seeds, and is 0 where they differ no more than the images
    explain. ``image_variance`` estimates the rest, σb² / I + σe² / (S I). ``between_seeds`` is the variance of the
    seeds' means divided by S, which estimates σa² / S + σe² / (S I).
    """

    mean: Floats
    seed_variance: Floats
    image_variance: Floats
    between_seeds: Floats
    seeds: int
    images: int

    def margin(self, p: float = 0.05) -> Floats:
        """Return half the width of the symmetric interval of confidence 1 - p.

        With t of S - 1 degrees of freedom it is sqrt(t² seed_variance + z² image_variance), Howe's rule for the sum of
        two independent estimates (1974), and at least sqrt(t² between_seeds), Student's interval over the seeds' means:
        three seeds that happen to agree do not show that seeds agree.
        """
        from scipy.special import ndtri, stdtrit

        t, z = stdtrit(self.seeds - 1, p / 2), ndtri(p / 2)
        both = t**2 * self.seed_variance + z**2 * self.image_variance
        margin: Floats = np.sqrt(np.maximum(both, t**2 * self.between_seeds))
        return margin

    def rate_interval(self) -> tuple[Floats, Floats]:
        """Return the 95 % interval of error rates whose means these are."""
        return rate_interval(self.mean, self.margin(), self.images)


@dataclass(frozen=True)
class TrainingErrorRate:
    """The error rate of a training procedure.

    ``rates`` has the error rate of every seed, in [0, 1]. ``interval`` is the 95 % interval that takes seeds and images
    as samples; it is none for a single seed, from which nothing about training follows. ``image_interval`` takes only
    images as samples, and is about just these trained models.
    """

    rates: tuple[float, ...]
    images: int
    interval: tuple[float, float] | None
    image_interval: tuple[float, float]

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.rates)

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.rates)

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds (n - 1); none for a single one."""
        return statistics.stdev(self.rates) if self.seeds > 1 else None


def training_error_rate(wrong: npt.ArrayLike) -> TrainingErrorRate:
    """Return the error rate over seeds with its intervals, from the images that each seed's model got wrong.

    Args:
        wrong: bool or 0 and 1 (or rates in between, as from repeated noise), shape (seeds, images); column i is the
            same image for every seed.

    Raises:
        GradshardError: the array has another shape, or values outside of [0, 1].
    """
    values = checked_errors(wrong)
    rates, images = values.mean(axis=1), values.shape[1]
    of_images = Z95 * np.std(values.mean(axis=0)) / np.sqrt(images)
    interval = None if len(rates) == 1 else _pair(crossed_mean(values).rate_interval())
    return TrainingErrorRate(
        tuple(map(float, rates)), images, interval, _pair(rate_interval(rates.mean(), of_images, images))
    )


def crossed_mean(values: npt.ArrayLike) -> CrossedMean:
    """Compute means of values (..., S, I), with S and I at least 2, and the parts of their variance.

    These follow from the mean squares of the two-way layout without repetition (Scheffé 1959, chapter 7; Searle,
    Casella and McCulloch 1992, chapter 4): A between seeds, B between images, E of the residuals. σa² =
    max(0, A - E) / I, as REML has it for balanced data, and the rest is B / (S I).
    """
    values = np.asarray(values)
    seeds, images = values.shape[-2:]
    rows, columns = values.mean(axis=-1, dtype=np.float64), values.mean(axis=-2, dtype=np.float64)
    mean = rows.mean(axis=-1)
    of_seeds = images * np.var(rows, axis=-1, ddof=1)
    of_images = seeds * np.var(columns, axis=-1, ddof=1)
    total = np.square(values, dtype=np.float64).sum(axis=(-2, -1)) - seeds * images * mean**2
    left = total - (seeds - 1) * of_seeds - (images - 1) * of_images
    of_rest = np.maximum(0.0, left) / ((seeds - 1) * (images - 1))
    cells = seeds * images
    return CrossedMean(
        mean,
        seed_variance=np.maximum(0.0, of_seeds - of_rest) / cells,
        image_variance=of_images / cells,
        between_seeds=of_seeds / cells,
        seeds=seeds,
        images=images,
    )


def rate_interval(rate: npt.ArrayLike, margin: npt.ArrayLike, images: int) -> tuple[Floats, Floats]:
    """Return Wilson's 95 % interval of the number of images that alone would give an error rate this margin.

    That number is the effective sample size of survey statistics (Korn and Graubard 1998, Franco et al. 2019). The
    interval stays within [0, 1] and is as asymmetric as rates near 0 are. Where the margin is 0, as without any error,
    the number is that of the images, counted once.
    """
    rate, margin = np.asarray(rate, dtype=np.float64), np.asarray(margin, dtype=np.float64)
    known = margin > 0
    effective = rate * (1 - rate) * (Z95 / np.where(known, margin, 1.0)) ** 2
    return score_interval(rate, np.where(known, effective, images), Z95)


def checked_errors(wrong: npt.ArrayLike) -> Floats:
    """Return errors as floats (seeds, images).

    Raises:
        GradshardError: the array has another shape, or values outside of [0, 1].
    """
    values = np.asarray(wrong, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise GradshardError(f"errors have the shape {values.shape}: give (seeds, images), at least one of each")
    if not ((values >= 0) & (values <= 1)).all():
        raise GradshardError("errors have values outside of [0, 1]: give 1 for an image classified wrong, 0 for right")
    return values


def _pair(interval: tuple[Floats, Floats]) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])
