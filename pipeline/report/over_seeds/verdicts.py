"""Verdicts on claims about two ways of training, by what was measured over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradshard.pipeline.evaluation.paired_defences import ONE_SEED, PairedDifference

Verdict = Literal["holds", "reversed", "not shown"]


@dataclass(frozen=True)
class ClaimedDifference:
    """A claim that the first of two defences errs less (``lower``) or more than the second, and its measurement.

    The p-value of ``measured`` is corrected for all comparisons that are shown together (`correct_for_number`).
    ``steady`` says that no seed changes the two, so that the interval is over images alone.
    """

    expected: Literal["lower", "higher"]
    measured: PairedDifference
    steady: bool = False

    @property
    def verdict(self) -> Verdict:
        """The verdict on this difference alone."""
        if self.measured.finding == self.expected:
            return "holds"
        return "reversed" if self.measured.finding in ("lower", "higher") else "not shown"

    @property
    def figures(self) -> str:
        """The difference in points, its interval, how many seeds and the corrected p-value, or why there are none."""
        points = f"{100 * self.measured.difference:+.1f} points"
        if self.measured.interval is None or self.measured.corrected_p is None:
            return f"{points} ({ONE_SEED})"
        low, high = (100 * end for end in self.measured.interval)
        over = "the same for every seed" if self.steady else f"{self.measured.seeds} seeds"
        p = p_text(self.measured.corrected_p)
        return f"{points} ({low:+.1f} to {high:+.1f}, {over}, p {p if p.startswith('<') else f'= {p}'})"


def p_text(p: float) -> str:
    """Write a p-value to two figures."""
    return "< 1e-12" if p < 1e-12 else f"{p:.2g}"


def verdict(claimed: Sequence[ClaimedDifference]) -> Verdict:
    """Return the verdict on a claim that says several differences at once.

    It holds if every one of them does, and is reversed if at least one is; if no difference was measured it is not
    shown.
    """
    each = [difference.verdict for difference in claimed]
    if "reversed" in each:
        return "reversed"
    return "holds" if each and "not shown" not in each else "not shown"
