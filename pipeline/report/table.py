"""Tables and their cells, ready to be shown in whatever format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol, runtime_checkable

from gradshard.pipeline.evaluation.statistics import ErrorRate

UNMEASURED = "–"


@runtime_checkable
class TableCell(Protocol):
    """Content of one place of a table."""

    @property
    def text(self) -> str:
        """The figure itself."""

    @property
    def beside(self) -> str:
        """Return the text under or after it, such as the paper's figure; may be empty."""

    @property
    def note(self) -> str:
        """Return the text that explains it, such as its interval; may be empty."""

    @property
    def bold(self) -> bool:
        """Tell whether it is tied for best."""

    @property
    def marked(self) -> bool:
        """Tell whether it is a white box."""

    @property
    def heat(self) -> float | None:
        """Return how warm to colour it, in [0, 1]; none for no colour."""

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """Return the values that a spreadsheet gets, by column; nothing if nothing was measured."""


@dataclass(frozen=True)
class Table:
    """A table: a corner, column heads, and per row a head and its cells; ``name`` is for its file.

    ``caption`` tells which seeds its figures are over, where there are several.
    """

    name: str
    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[TableCell]]]
    caption: str = ""

    @property
    def measured(self) -> bool:
        """Tell whether there is a figure in it."""
        return any(cell.text != UNMEASURED for _, cells in self.rows for cell in cells)


@dataclass(frozen=True)
class RateCell:
    """One error rate, in percent, beside the paper's figure where there is one."""

    rate: ErrorRate | None
    bold: bool = False
    marked: bool = False
    paper: float | None = None

    @property
    def text(self) -> str:
        """The error rate in percent, or a dash where nothing was measured."""
        return UNMEASURED if self.rate is None else f"{100 * self.rate.rate:.1f}"

    @property
    def beside(self) -> str:
        """The paper's figure and how far the measured one is above it, in points; empty if either is missing."""
        return "" if self.rate is None else beside_paper(100 * self.rate.rate, self.paper)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval over the test images, of the normal approximation, if it was measured."""
        return None if self.rate is None else self.rate.interval

    @property
    def note(self) -> str:
        """The 95 % intervals in percent."""
        if self.rate is None:
            return "not measured"
        low, high = self.rate.interval
        wilson_low, wilson_high = self.rate.wilson
        return (
            f"95 % interval {100 * low:.1f} to {100 * high:.1f} (Wilson {100 * wilson_low:.1f} to "
            f"{100 * wilson_high:.1f}), n = {self.rate.n}"
        )

    @property
    def heat(self) -> float | None:
        """The error rate."""
        return None if self.rate is None else self.rate.rate

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """The rate and both intervals, in percent."""
        if self.rate is None:
            return {}
        names = ("value", "low", "high", "wilson_low", "wilson_high")
        shares = (self.rate.rate, *self.rate.interval, *self.rate.wilson)
        percent = {name: round(100 * share, 4) for name, share in zip(names, shares, strict=True)}
        return percent | {"n": self.rate.n, "bold": int(self.bold)} | paper_field(self.paper)


@dataclass(frozen=True)
class NumberCell:
    """A number that is no error rate, to three figures, beside the paper's where there is one."""

    number: float
    paper: float | None = None
    note: str = ""
    bold: bool = False
    marked: bool = False
    heat: float | None = None

    @property
    def text(self) -> str:
        """The number."""
        return f"{self.number:.3g}"

    @property
    def beside(self) -> str:
        """The paper's figure."""
        return "" if self.paper is None else f"paper {self.paper:g}"

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """The number."""
        return {"value": self.number} | paper_field(self.paper)


@dataclass(frozen=True)
class AmountCell:
    """The mean over seeds of an amount, such as of passes or bytes; empty if it is not known."""

    amounts: Mapping[int, float]
    beside: str = ""
    bold: bool = False
    marked: bool = False
    heat: float | None = None

    @property
    def text(self) -> str:
        """The mean, to one decimal; whole from a thousand on, or if it is a whole number."""
        if not self.amounts:
            return UNMEASURED
        mean = fmean(self.amounts.values())
        return f"{mean:,.0f}" if mean >= 1000 or mean == int(mean) else f"{mean:,.1f}"

    @property
    def note(self) -> str:
        """Each seed's amount."""
        return ", ".join(f"{seed}: {amount:,.2f}" for seed, amount in self.amounts.items()) or "not known"

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """The mean, and over how many seeds it is."""
        if not self.amounts:
            return {}
        return {"value": round(fmean(self.amounts.values()), 4), "runs": len(self.amounts)}


def beside_paper(percent: float, paper: float | None) -> str:
    """Write the paper's figure and how far the measured one is above it, in points; nothing without it."""
    if paper is None:
        return ""
    above = round(percent - paper, 1) + 0.0  # never "-0.0"
    return f"paper {paper:.1f}, {above:+.1f}"


def paper_field(paper: float | None) -> dict[str, float]:
    """Return the paper's figure as a column of a spreadsheet, if there is one."""
    return {} if paper is None else {"paper": paper}
