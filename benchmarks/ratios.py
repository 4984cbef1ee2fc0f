"""Ratios of times measured side by side, because absolute times on a shared machine mean little."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Step = Callable[[], object]


@dataclass(frozen=True)
class Claim:
    """A ratio, its target (``at`` most or least that), and how it spread: the least and the largest of ``repeats``.

    A ratio without a target is measured to be known, not to be reached.
    """

    name: str
    value: float
    target: float | None
    at: Literal["most", "least"]
    repeats: int
    least: float
    largest: float

    @property
    def reached(self) -> bool | None:
        """Tell whether the claim holds; none without a target."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at == "most" else self.value >= self.target

    @property
    def target_text(self) -> str:
        """The target for a person."""
        return "–" if self.target is None else f"at {self.at} {self.target:g}"

    @property
    def verdict(self) -> str:
        """Tell a person whether it is reached."""
        return {None: "no target", True: "reached", False: "NOT reached"}[self.reached]

    def line(self) -> str:
        """Return the claim for a person."""
        spread = f"{self.least:.3f} to {self.largest:.3f} in {self.repeats} repeats"
        return f"{self.name}: {self.value:.3f} (target: {self.target_text}; {spread}): {self.verdict}"

    def record(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return asdict(self) | {"reached": self.reached}

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> "Claim":
        """Return the claim that a record is of."""
        return cls(**{field.name: record[field.name] for field in fields(cls)})


def claim(
    name: str, ratios: Sequence[float], *, target: float | None = None, at: Literal["most", "least"] = "most"
) -> Claim:
    """Return a claim about the median of ratios."""
    return Claim(name, statistics.median(ratios), target, at, len(ratios), min(ratios), max(ratios))


def seconds(steps: Mapping[str, Step], *, repeats: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Time several things, interleaved: each once a round, in an order that turns from round to round.

    Args:
        steps: what to time, by name.
        repeats: the rounds that count.
        warm_up: whether each is done once before.
    """
    if warm_up:
        for step in steps.values():
            step()
    return in_turn({name: functools.partial(_seconds, step) for name, step in steps.items()}, repeats=repeats)


def in_turn(steps: Mapping[str, Callable[[], float]], *, repeats: int) -> dict[str, list[float]]:
    """Collect the seconds that several things tell of themselves, each once a round, the order turning every round."""
    names = list(steps)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(steps[name]())
    return found


def ratios(times: Mapping[str, Sequence[float]], one: str, other: str) -> list[float]:
    """Round by round, the time of ``one`` over that of ``other``."""
    return [a / b for a, b in zip(times[one], times[other], strict=True)]


def compare(
    name: str, one: Step, other: Step, *, target: float, repeats: int, at: Literal["most", "least"] = "most"
) -> Claim:
    """Return the time of ``one`` over that of ``other``: the median over interleaved repeats."""
    return claim(
        name, ratios(seconds({"one": one, "other": other}, repeats=repeats), "one", "other"), target=target, at=at
    )


def _seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
