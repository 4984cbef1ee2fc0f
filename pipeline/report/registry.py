"""The tables of one gradient and one top k, in the order of the page; a new table is one entry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report import selection, tables
from gradshard.pipeline.report.defences.battery import battery_table
from gradshard.pipeline.report.defences.costs import Costs
from gradshard.pipeline.report.defences.study import Study, compared_table, study_table
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.paper import findings
from gradshard.pipeline.report.table import Table

# The paper's attacks, which have tables of their own or are in table 4.
_SHOWN_ELSEWHERE = ("fgsm", "rand_fgsm", *tables.TRANSFERRED)


@dataclass(frozen=True)
class Results:
    """Results that tables are made from: the matrix of one gradient and top k, targets, and comparable groups."""

    params: Params
    matrix: ErrorMatrix
    shown: Sequence[str]
    groups: Mapping[str, Sequence[str]]
    costs: Costs = field(default_factory=Costs)

    @property
    def holdout(self) -> str:
        """The model that no training saw."""
        return self.params.evaluation.holdout

    @property
    def study(self) -> Study | None:
        """The targets under the battery, with their costs, if there is a battery."""
        battery = self.params.evaluation.battery
        return Study(self.params, battery, self.matrix, self.costs) if battery else None


def _other_attacks(of: Results) -> list[Table]:
    """Return a table for every attack that is not one of the paper's three."""
    others = [attack for attack in of.params.evaluation.attacks if attack not in _SHOWN_ELSEWHERE]
    found = [tables.transfer_table(of.matrix, attack, of.shown) for attack in others]
    return [table for table in found if table.rows]


def _holdouts(of: Results) -> list[Table]:
    robust = [name for models in of.groups.values() for name in models]
    holdouts = selection.held_out(of.params)
    return [tables.holdouts_table(of.matrix, robust, holdouts)] if len(holdouts) > 1 else []


def _random_training(of: Results) -> list[Table]:
    random = selection.trained_on_random_steps(of.params, of.matrix.gradient)
    trained = of.params.robust
    alike = {trained[name].architecture for name in random}
    beside = [name for name in selection.standard(of.params, of.shown) if trained[name].architecture in alike]
    return [tables.random_training_table(of.matrix, [*beside, *random], of.holdout)] if random else []


def _findings(of: Results) -> list[Table]:
    random = selection.trained_on_random_steps(of.params, of.matrix.gradient)
    played = findings.roles(of.params, of.shown, random)
    found = [findings.findings_table(of.matrix, played)] if played else []
    return [table for table in found if table.rows]


def _battery(of: Results) -> list[Table]:
    battery = of.params.evaluation.battery
    table = battery_table(of.matrix, of.params, battery) if battery else None
    return [table] if table and table.rows else []


def _study(of: Results) -> list[Table]:
    study, baseline = of.study, of.params.analysis.baseline
    if study is None:
        return []
    found = [study_table(study), compared_table(study, baseline) if baseline else None]
    return [table for table in found if table is not None]


# Each gives no table where there is nothing to show.
TABLES: Sequence[Callable[[Results], Sequence[Table]]] = (
    lambda of: [tables.transfer_table(of.matrix, "fgsm", of.shown)],
    lambda of: [tables.transfer_table(of.matrix, "rand_fgsm", of.shown)],
    _other_attacks,
    lambda of: [tables.white_box_table(of.matrix, of.shown)],
    lambda of: [tables.worst_case_table(of.matrix, of.shown)],
    lambda of: [tables.defence_table(of.matrix, of.groups, of.holdout)],
    _holdouts,
    _battery,
    _study,
    _random_training,
    _findings,
)


def make_tables(of: Results) -> list[Table]:
    """Make every table that has something to show, with a caption about the seeds that it is over."""
    made = (table for make in TABLES for table in make(of))
    return [of.matrix.seeds.captioned(table) for table in made if table.measured]
