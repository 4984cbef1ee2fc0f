"""Ratios of times measured side by side, because absolute times on a shared machine mean little."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A ratio, what it should be at most, and how it spread: the least and the largest of ``repeats`` ratios."""

    name: str
    value: float
    target: float
    repeats: int
    least: float
    largest: float

    @property
    def reached(self) -> bool:
        """Whether the claim holds."""
        return self.value <= self.target

    def line(self) -> str:
        """The claim for a person."""
        verdict = "reached" if self.reached else "NOT reached"
        spread = f"{self.least:.3f} to {self.largest:.3f} in {self.repeats} repeats"
        return f"{self.name}: {self.value:.3f} (target: at most {self.target}; {spread}): {verdict}"


def compare(name: str, one: Callable[[], object], other: Callable[[], object], *, target: float, repeats: int) -> Claim:
    """The time of ``one`` over that of ``other``: the median over interleaved repeats, one more goes ahead."""
    one()
    other()
    ratios = []
    for _ in range(repeats):
        ratios.append(_seconds(one) / _seconds(other))
    return Claim(name, statistics.median(ratios), target, repeats, min(ratios), max(ratios))


def _seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
