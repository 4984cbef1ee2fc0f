"""Error rates with their uncertainty, and which of several are tied for best."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054


@dataclass(frozen=True)
class ErrorRate:
    """Errors among n examples."""

    errors: int
    n: int

    @property
    def rate(self) -> float:
        """The share of errors."""
        return self.errors / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the normal approximation, as in the paper's table 4, within [0, 1]."""
        half = Z95 * math.sqrt(self.rate * (1 - self.rate) / self.n)
        return max(0.0, self.rate - half), min(1.0, self.rate + half)

    @property
    def wilson(self) -> tuple[float, float]:
        """Wilson's 95 % score interval, which holds near 0 and 1 too, where the normal one does not (Wilson 1927)."""
        return self.score_interval(Z95)

    def score_interval(self, z: float) -> tuple[float, float]:
        """Return Wilson's score interval of ``z`` standard deviations."""
        low, high = score_interval(self.rate, self.n, z)
        return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """Two error rates on the same examples: how often only the first erred, only the second, and the p-value."""

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class MeanAndStd:
    """The mean over runs and their standard deviation (n - 1); none for a single run."""

    mean: float
    deviation: float | None
    runs: int


def score_interval(
    rate: npt.ArrayLike, n: npt.ArrayLike, z: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return Wilson's score interval of ``z`` standard deviations for error rates among ``n`` examples (Wilson 1927).

    It contains the rate itself, which at 0 and 1 is one of its ends.
    """
    rate, n, square = np.asarray(rate, dtype=np.float64), np.asarray(n, dtype=np.float64), z**2
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * np.sqrt(rate * (1 - rate) / n + square / (4 * n**2))
    # Rounding may carry an end past the rate, and a bar of negative length cannot be drawn.
    return np.maximum(0.0, np.minimum(rate, centre - half)), np.minimum(1.0, np.maximum(rate, centre + half))


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> PairedTest:
    """Test by McNemar's exact test that two error rates are equal, from the examples that each got right, bool (n,).

    If they are equal, each discordant example is as likely to be one's error as the other's: a two-sided binomial test.
    """
    from scipy.stats import binomtest  # importing it takes half a second

    only_first, only_second = int((~first & second).sum()), int((first & ~second).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return PairedTest(only_first, only_second, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979): the risk that any below 0.05 arose by chance is at most 5 %."""
    count, largest = len(p_values), 0.0
    corrected = [0.0] * count
    for rank, at in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (count - rank) * p_values[at]))
        corrected[at] = largest
    return corrected


def mean_and_std(values: Sequence[float]) -> MeanAndStd:
    """Return mean and standard deviation over the runs of one experiment with several seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return MeanAndStd(statistics.fmean(values), deviation, len(values))


def tied_for_best(rates: Sequence[ErrorRate]) -> list[bool]:
    """Tell which of several error rates are statistically tied for the lowest.

    The rule: a rate is tied if its 95 % interval overlaps that of the lowest rate. The paper speaks of ties "based on
    95 % confidence intervals" and leaves the rule open.
    """
    best = min(rates, key=lambda rate: rate.rate)
    return [rate.interval[0] <= best.interval[1] for rate in rates]
