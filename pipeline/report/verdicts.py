"""Verdicts on what is claimed of two ways of training, by what was measured over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradshard.pipeline.evaluation.paired_defences import ONE_SEED, PairedDifference

Verdict = Literal["holds", "reversed", "not shown"]


@dataclass(frozen=True)
class ClaimedDifference:
    """That the first of two defences errs less (``lower``) or more than the second, and what was measured of it.

    The p-value of ``measured`` is corrected for all comparisons that are shown together (`correct_for_number`).
    """

    expected: Literal["lower", "higher"]
    measured: PairedDifference

    @property
    def verdict(self) -> Verdict:
        """One difference alone."""
        if self.measured.finding == self.expected:
            return "holds"
        return "reversed" if self.measured.finding in ("lower", "higher") else "not shown"

    @property
    def figures(self) -> str:
        """The difference in points, its interval, how many seeds and the corrected p-value; why there are none."""
        points = f"{100 * self.measured.difference:+.1f} points"
        if self.measured.interval is None or self.measured.corrected_p is None:
            return f"{points} ({ONE_SEED})"
        low, high = (100 * end for end in self.measured.interval)
        p = self.measured.corrected_p
        p_text = "p < 1e-12" if p < 1e-12 else f"p = {p:.2g}"
        return f"{points} ({low:+.1f} to {high:+.1f}, {self.measured.seeds} seeds, {p_text})"


def verdict(claimed: Sequence[ClaimedDifference]) -> Verdict:
    """The verdict on a claim that says several differences at once.

    It holds if every one of them does, and is reversed if one comes out the other way round; without any difference
    measured nothing is shown.
    """
    each = [difference.verdict for difference in claimed]
    if "reversed" in each:
        return "reversed"
    return "holds" if each and "not shown" not in each else "not shown"
