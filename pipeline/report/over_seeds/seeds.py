"""The seeds that results are over, what changes with them, and the table cells and captions that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell, TrainingNumberCell
from gradshard.pipeline.report.table import NumberCell, RateCell, Table


@dataclass(frozen=True)
class Seeds:
    """The seeds of training that results are over; and the static models that are the same for all of them.

    ``sources_vary`` tells whether other static models stand in for some in the run of a seed; ``two_runs`` whether
    results of another run, which has static models of its own, stand beside these.
    """

    of: Sequence[int]
    steady: frozenset[str] = field(default_factory=frozenset)
    sources_vary: bool = False
    two_runs: bool = False

    @classmethod
    def of_params(cls, params: Params, measured: Sequence[int]) -> Self:
        """Return the seeds of the parameters that were measured."""
        # Of these seeds alone: stand-ins of a seed that was not measured change nothing here.
        instead = [params.stand_ins.get(seed, {}) for seed in measured]
        steady = frozenset(name for name in params.static if len({its.get(name, name) for its in instead}) <= 1)
        return cls(tuple(measured), steady, any(its != instead[0] for its in instead))

    @property
    def several(self) -> bool:
        """Tell whether there is more than one seed."""
        return len(self.of) > 1

    @property
    def varying(self) -> str:
        """Name what changes with the seed."""
        return "training and static models" if self.sources_vary else "training"

    @property
    def said(self) -> str:
        """Say over how many seeds a figure is, and whether the static models vary with them."""
        static = "static models varying too" if self.sources_vary else "the same static models"
        if self.two_runs:
            return f"over the {len(self.of)} seeds of training that two runs share, in this run {static}"
        return f"over {len(self.of)} seeds of training, {static}"

    def same(self, *models: str) -> bool:
        """Tell whether none of these models changes with the seed; empty names stand for no model."""
        return all(not model or model in self.steady for model in models)

    def cell(
        self, errors: SeedErrors, *models: str, marked: bool = False, paper: float | None = None
    ) -> RateCell | TrainingCell:
        """Return the cell of errors, by seed, that these models take part in."""
        if self.several and not self.same(*models):
            return TrainingCell(errors, expected=len(self.of), varying=self.varying, marked=marked, paper=paper)
        return RateCell(next(iter(errors.rates.values()), None), marked=marked, paper=paper)

    def number(
        self, numbers: Mapping[int, float], model: str, *, paper: float | None = None, note: str = ""
    ) -> NumberCell | TrainingNumberCell:
        """Return the cell of a model's number that is no error rate, by seed; ``note`` is for a single seed."""
        if self.several and not self.same(model):
            return TrainingNumberCell(numbers, expected=len(self.of), varying=self.varying, paper=paper)
        return NumberCell(next(iter(numbers.values())), paper=paper, note=note)

    def captioned(self, table: Table) -> Table:
        """Add to a table's caption, at its beginning, which seeds its cells are over, if they are over several."""
        cells = [cell for _, cells in table.rows for cell in cells]
        over = [cell for cell in cells if isinstance(cell, TrainingCell | TrainingNumberCell)]
        if not over:
            return table
        lacking = (
            " No interval stands where errors are known by their number alone."
            if any(isinstance(cell, TrainingCell) and cell.lacks_images for cell in over)
            else ""
        )
        own = f" {table.caption}" if table.caption else ""
        return replace(table, caption=f"Mean ± standard deviation {self.said}.{lacking}{own}")
