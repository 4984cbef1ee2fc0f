"""The error matrix, looked up by target, source and attack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report import published
from gradshard.pipeline.report.seeds import Seeds
from gradshard.pipeline.report.table import RateCell, SeedsCell
from gradshard.pipeline.types import CLEAN, WORST_CASE, Gradient


@dataclass(frozen=True)
class ErrorMatrix:
    """The error matrix, looked up by target, source and attack; of one gradient, one top k and all seeds.

    ``called`` gives the paper's names of our models, for its figures to stand beside ours.
    """

    rows: Sequence[Mapping[str, Any]]
    gradient: Gradient
    seeds: Seeds
    called: Mapping[str, str] = field(default_factory=dict)
    top: int = 1
    _index: dict[tuple[str, str, str], dict[int, ErrorRate]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if row["gradient"] in ("", self.gradient) and row["top"] == self.top:
                found = self._index.setdefault((row["target"], row["source"], row["attack"]), {})
                found[row["seed"]] = ErrorRate(row["errors"], row["n"])

    def rates(self, target: str, source: str, attack: str) -> Mapping[int, ErrorRate]:
        """The error rate by seed, of those it was measured with; the source of clean images is empty."""
        return self._index.get((target, source, attack), {})

    def cell(self, target: str, source: str, attack: str, *, marked: bool = False) -> RateCell | SeedsCell:
        """The error rate as a table shows it, with the paper's figure."""
        paper = self.papers(target, source, attack)
        return self.seeds.cell(self.rates(target, source, attack), target, source, marked=marked, paper=paper)

    def papers(self, target: str, source: str, attack: str) -> float | None:
        """The paper's figure for the same error rate, in percent, if it has one."""
        return published.error(self.called.get(target, ""), self.called.get(source, ""), attack, self.top)

    @property
    def targets(self) -> list[str]:
        """All targets, in the order of the matrix."""
        return list(dict.fromkeys(target for target, _, _ in self._index))

    def attacks(self, target: str) -> list[tuple[str, str]]:
        """The source and name of every single attack on a target, in the order of the matrix."""
        return [
            (source, attack) for of, source, attack in self._index if of == target and attack not in (CLEAN, WORST_CASE)
        ]

    def sources(self, attack: str) -> list[str]:
        """The models that crafted the attack, in the order of the matrix."""
        return list(dict.fromkeys(source for _, source, name in self._index if name == attack))
