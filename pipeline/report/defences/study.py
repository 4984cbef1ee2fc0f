"""The study: each defence's errors and costs, under the same adversary for every row.

The battery's table splits its sources by what each target's training saw, so that its halves differ from row to row.
Here the transferred attacks are those of sources that no target's training saw: of architectures that none saw either
and, in a column of their own, of architectures of which some saw another training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.config.battery import (
    UNSEEN_BY_ALL,
    BatteryParams,
    battery_source,
    same_architecture_for_some,
    unseen_by_all,
)
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.evaluation.paired_defences import correct_for_number
from gradshard.pipeline.report.defences.costs import Costs
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds import seed_errors
from gradshard.pipeline.report.over_seeds.difference_cell import DifferenceCell, said_of_differences
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.over_seeds.ties import tied_for_best
from gradshard.pipeline.report.table import AmountCell, Table, TableCell
from gradshard.pipeline.types import CLEAN, WORST_CASE


@dataclass(frozen=True)
class Study:
    """Results that the study is made from: the matrix of one gradient and top k, and the costs of the targets."""

    params: Params
    battery: BatteryParams
    matrix: ErrorMatrix
    costs: Costs

    @property
    def targets(self) -> list[str]:
        """The targets, in the order of the parameters."""
        return [name for name in self.params.evaluation.targets if name in self.matrix.targets]

    @property
    def sources(self) -> list[str]:
        """The sources of the battery that no target's training saw."""
        return unseen_by_all(self.params)

    @property
    def measured(self) -> bool:
        """Tell whether ``sources`` exist and every target was measured under them; otherwise there is no study."""
        targets = self.targets
        return bool(targets and self.sources) and all(self.transferred(target).rates for target in targets)

    @property
    def other_trainings(self) -> list[str]:
        """The sources that no target's training saw, of architectures that some target's training saw."""
        return same_architecture_for_some(self.params)

    def transferred(self, target: str) -> SeedErrors:
        """Return the worst case of a target over ``sources``, example by example, clean images among them.

        It is put together from the examples of its cells. If these are not known, it is what ``evaluate`` wrote, if it
        did, for the targets that the parameters had then.
        """
        found = self.worst_case(target, self.sources)
        return found if found.rates else self.matrix.errors(target, battery_source(UNSEEN_BY_ALL), WORST_CASE)

    def worst_case(self, target: str, sources: Sequence[str]) -> SeedErrors:
        """Return the worst case of a target over clean images and all the battery's attacks from these sources.

        It has no rates where the examples of a cell are not known.
        """
        return self.matrix.worst_case(target, product(sources, self.battery.attacks))


@dataclass(frozen=True)
class _Column:
    """A column of errors: its title, the errors by target, and the models that take part besides the target."""

    title: str
    errors: Callable[[str], SeedErrors]
    sources: Sequence[str] = ()


def study_table(study: Study) -> Table | None:
    """Make the table of every target's errors and costs; none if no source is unseen by all of them.

    In each column those tied for best are bold. Costs are per training image; passes count forward and backward ones.
    """
    columns = _columns(study)
    if columns is None:
        return None
    rows: dict[str, list[TableCell]] = {target: [] for target in study.targets}
    for column in columns:
        found = {target: column.errors(target) for target in rows}
        models = {target: (target, *column.sources) for target in rows}
        ties = tied_for_best(study.matrix.seeds, [(models[target], errors) for target, errors in found.items()])
        for (target, errors), tied in zip(found.items(), ties, strict=True):
            rows[target].append(replace(study.matrix.seeds.cell(errors, *models[target]), bold=tied))
    amounts = _amounts(study.costs, study.targets)
    for target, cells in rows.items():
        cells += [AmountCell(of_target[target]) for of_target in amounts.values()]
    titles = [*(column.title for column in columns), *amounts]
    said = "Passes, forward and backward, and bytes are those of one training image." if amounts else ""
    return Table("study", "Defences and what they cost", "target", titles, list(rows.items()), said)


def compared_table(study: Study, baseline: str) -> Table | None:
    """Make the table of every other target's error less the baseline's, in points, on the same seeds and images.

    Intervals are of each comparison alone; p-values are corrected for all comparisons of the table (Holm 1979).
    """
    columns = _columns(study)
    others = [target for target in study.targets if target != baseline]
    if columns is None or baseline not in study.targets or not others:
        return None
    found = {}
    for target, column in product(others, columns):
        both = [column.errors(target), column.errors(baseline)]
        if study.matrix.seeds.same(target, baseline, *column.sources):
            both = seed_errors.of_one_seed(both)
        if seed_errors.shared_seeds(both):
            found[target, column.title] = seed_errors.difference(*both)
    corrected = dict(zip(found, correct_for_number(list(found.values())), strict=True))
    titles = [column.title for column in columns]
    rows = [(target, [DifferenceCell(corrected.get((target, title))) for title in titles]) for target in others]
    title = f"Errors less those of {baseline}, in points"
    return Table("study-compared", title, "target", titles, rows, said_of_differences(list(corrected.values())))


def _columns(study: Study) -> list[_Column] | None:
    """Return the columns of errors, if every target was measured under sources that are unseen by all."""
    matrix = study.matrix
    if not study.measured:
        return None
    transferred = [_Column(_worst_case_from(study.sources), study.transferred, study.sources)]
    others = study.other_trainings
    if others and all(study.worst_case(target, others).rates for target in study.targets):
        from_others = partial(study.worst_case, sources=others)
        transferred.append(_Column(_worst_case_from(others), from_others, others))
    own = [_Column(f"own {attack_title(attack)}", partial(_own, matrix, attack)) for attack in study.battery.own]
    clean = _Column("Clean", lambda target: matrix.errors(target, "", CLEAN))
    return [clean, *transferred, *own]


def _worst_case_from(sources: Sequence[str]) -> str:
    return f"worst case from {', '.join(sources)}"


def _own(matrix: ErrorMatrix, attack: str, target: str) -> SeedErrors:
    return matrix.errors(target, target, attack)


def _amounts(costs: Costs, targets: Sequence[str]) -> Mapping[str, Mapping[str, Mapping[int, float]]]:
    """Return the costs by column, target and seed, of columns in which something is known."""
    columns = {
        "passes of training": costs.training,
        "passes of making stores": costs.making,
        "bytes kept": costs.kept,
    }
    found = {title: {target: amount(target) for target in targets} for title, amount in columns.items()}
    return {title: of_target for title, of_target in found.items() if any(of_target.values())}
