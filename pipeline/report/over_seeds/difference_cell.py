"""Differences of error rates, as tables show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradshard.pipeline.evaluation.paired_defences import ONE_SEED, PairedDifference
from gradshard.pipeline.report.over_seeds.verdicts import p_text
from gradshard.pipeline.report.table import UNMEASURED


@dataclass(frozen=True)
class DifferenceCell:
    """An error rate less another's, in points; its p-value is corrected for all that are shown together."""

    measured: PairedDifference | None
    bold: bool = False
    marked: bool = False
    heat: float | None = None

    @property
    def text(self) -> str:
        """The difference, or a dash if both have no measured seed in common."""
        return UNMEASURED if self.measured is None else f"{100 * self.measured.difference:+.1f}"

    @property
    def beside(self) -> str:
        """Its 95 % interval and the corrected p-value; nothing for one seed."""
        if self.measured is None or self.measured.interval is None or self.measured.corrected_p is None:
            return ""
        low, high = (100 * end for end in self.measured.interval)
        p = p_text(self.measured.corrected_p)
        return f"{low:+.1f} to {high:+.1f}, p {p if p.startswith('<') else f'= {p}'}"

    @property
    def note(self) -> str:
        """Tell how many seeds and images the difference is over."""
        if self.measured is None:
            return "not measured"
        over = f"{self.measured.seeds} seeds, {self.measured.images} images"
        return over if self.beside else ONE_SEED

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """The difference and its interval in points, the p-value, and how many seeds and images it is over."""
        if self.measured is None:
            return {}
        found: dict[str, float | int | str] = {
            "value": round(100 * self.measured.difference, 4),
            "n": self.measured.images,
            "runs": self.measured.seeds,
        }
        if self.measured.interval is not None:
            low, high = self.measured.interval
            found |= {"low": round(100 * low, 4), "high": round(100 * high, 4)}
        if self.measured.corrected_p is not None:
            found["p"] = float(f"{self.measured.corrected_p:.4g}")
        return found


def said_of_differences(shown: Sequence[PairedDifference]) -> str:
    """Return the caption of differences that are shown together; nothing if none has a p-value."""
    tested = sum(its.corrected_p is not None for its in shown)
    return f"95 % intervals are of each comparison alone, p-values corrected for all {tested} (Holm)." if tested else ""
