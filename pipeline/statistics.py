"""Error rates with their uncertainty, and which of several are tied for best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z95 = 1.959963984540054


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
        half = _Z95 * math.sqrt(self.rate * (1 - self.rate) / self.n)
        return max(0.0, self.rate - half), min(1.0, self.rate + half)


def tied_for_best(rates: Sequence[ErrorRate]) -> list[bool]:
    """Which of several error rates are statistically tied for the lowest.

    The rule: a rate is tied if its 95 % interval overlaps that of the lowest rate. The paper speaks of ties "based on
    95 % confidence intervals" and leaves the rule open.
    """
    best = min(rates, key=lambda rate: rate.rate)
    return [rate.interval[0] <= best.interval[1] for rate in rates]
