"""The battery's table: each target against transferred attacks, separately by whether its training saw the sources."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.config.battery import BatteryParams, battery_source, split_battery
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell
from gradshard.pipeline.report.table import RateCell, Table
from gradshard.pipeline.types import CLEAN, WORST_CASE


def battery_table(matrix: ErrorMatrix, params: Params, battery: BatteryParams) -> Table:
    """Make the table: mean, worst cell, and worst case example by example, beside clean error and own attacks.

    The worst case is the error under an adversary who knows which transferred example fools the target, as in the
    column "best attack" of Sitawarin et al. 2024.
    """
    rows = []
    for target in [name for name in params.evaluation.targets if name in matrix.targets]:
        beside = [matrix.cell(target, "", CLEAN), *(matrix.cell(target, target, attack) for attack in battery.own)]
        for half, sources in split_battery(params, target).items():
            cells = [(source, attack) for source in sources for attack in battery.attacks]
            worst_case = matrix.seeds.cell(matrix.errors(target, battery_source(half), WORST_CASE), target, *sources)
            found = [_mean(matrix, target, cells), _worst(matrix, target, cells), worst_case]
            rows.append((f"{target}: {half} ({', '.join(sources)})", [*found, *beside]))
    columns = ["mean", "worst cell", "worst case", "Clean", *(f"own {attack_title(attack)}" for attack in battery.own)]
    title = f"The battery: {', '.join(map(attack_title, battery.attacks))}, transferred"
    return Table("battery", title, "target: sources", columns, rows)


def _mean(matrix: ErrorMatrix, target: str, cells: Sequence[tuple[str, str]]) -> RateCell | TrainingCell:
    """Return the mean of cells, over the seeds that have all of them.

    Its interval is that of a single cell with as many errors, which is wide enough: the share of attacks that fool an
    example varies less than a single attack's success with the same mean.
    """
    found = [matrix.rates(target, source, attack) for source, attack in cells]
    means = {seed: _mean_rate([rates[seed] for rates in found]) for seed in found[0] if _measured(found, seed)}
    return matrix.seeds.cell(SeedErrors(means), target, *(source for source, _ in cells))


def _measured(found: Sequence[Mapping[int, ErrorRate]], seed: int) -> bool:
    """Tell whether all cells were measured with a seed, on the same number of examples."""
    return all(seed in rates for rates in found) and len({rates[seed].n for rates in found}) == 1


def _mean_rate(rates: Sequence[ErrorRate]) -> ErrorRate:
    """Return the mean of error rates over the same examples, rounded to a whole number of errors."""
    return ErrorRate(round(sum(rate.errors for rate in rates) / len(rates)), rates[0].n)


def _worst(matrix: ErrorMatrix, target: str, cells: Sequence[tuple[str, str]]) -> RateCell | TrainingCell:
    found = [replace(matrix.cell(target, source, attack), paper=None) for source, attack in cells]
    return max(found, key=lambda cell: cell.heat or 0.0)
