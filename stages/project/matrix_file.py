"""The error matrix of a finished run, read from its file and the examples beside it."""

from pathlib import Path
from typing import Any

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.same_attacks import check_same_attacks
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.pipeline.report.paper import paper_figures
from gradshard.pipeline.types import Gradient
from gradshard.stages.project.paths import EVALUATION, REPORT
from gradshard.stages.project.report_files import EXAMPLES, MATRIX
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results


def read_error_matrix(matrix: Path, params: Params, gradient: Gradient, *, image_by_image: bool = False) -> ErrorMatrix:
    """Read the results of the parameters' seeds, and the examples.parquet beside them if a table needs it.

    With ``image_by_image`` that file is always read if it exists.

    Raises:
        GradshardError: there are no results of these seeds, they were not attacked alike, or a file is damaged.
    """
    rows = _rows(matrix, params)
    measured = {row["seed"] for row in rows}
    seeds = Seeds.of_params(params, [seed for seed in params.seeds if seed in measured])
    beside = matrix.parent / EXAMPLES
    # Reading it takes long, and of one seed only worst cases over some of a battery's sources need it.
    wanted = image_by_image or seeds.several or params.evaluation.battery is not None
    examples = results.read_examples(beside, seed=params.seeds[0]) if wanted and beside.exists() else {}
    return ErrorMatrix(rows, gradient, seeds, paper_figures.names(params), examples=examples)


def _rows(matrix: Path, params: Params) -> list[dict[str, Any]]:
    """Read the results of the seeds that the parameters list."""
    if not matrix.is_file():
        raise GradshardError(
            f"no results at {matrix}: run `gradshard report`, which writes {REPORT / MATRIX} of all seeds, or name the "
            f"{EVALUATION}/SEED/{MATRIX} that `gradshard evaluate` wrote"
        )
    found = results.read_matrix(matrix, seed=params.seeds[0])
    rows = [row for row in found if row["seed"] in params.seeds]
    if found and not rows:
        theirs, listed = dict.fromkeys(row["seed"] for row in found), ", ".join(map(str, params.seeds))
        raise GradshardError(
            f"{matrix} has results of the seeds {', '.join(map(str, theirs))}, and none of {listed}: name the "
            "parameters that it came from by --params, or list its seeds there"
        )
    foreign = [name for name in dict.fromkeys(row["target"] for row in rows) if name not in params.models]
    if foreign:
        raise GradshardError(
            f"{matrix} has the target {foreign[0]}, which the parameters do not have: name the parameters that it came "
            "from by --params"
        )
    check_same_attacks(rows, where=str(matrix))
    return rows
