"""The command ``compare``: a comparison of two models, or two ways of training, of finished runs."""

from collections.abc import Sequence
from pathlib import Path

import click

from gradshard.pipeline.config.schema import Params, read_params
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.compared import Adversary, compared_table, shared_adversaries
from gradshard.pipeline.report.over_seeds.two_runs import (
    FinishedRun,
    check_comparable,
    on_shared_seeds,
    why_not_comparable,
)
from gradshard.pipeline.types import Gradient
from gradshard.stages.console.options import gradient_option, params_option
from gradshard.stages.console.places import PathType
from gradshard.stages.console.progress import echo
from gradshard.stages.console.written_table import Format, check_place, format_option, into_option, put_table
from gradshard.stages.project.matrix_file import read_error_matrix
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.json_results import read_results


@click.command()
@click.argument("matrix", type=PathType(path_type=Path))
@click.argument("first")
@click.argument("second")
@click.option(
    "--on",
    "on",
    metavar="ADVERSARY",
    multiple=True,
    help="clean, own:ATTACK (by each model's own gradient) or SOURCE:ATTACK; for a worst case, several sources or "
    "attacks, separated by commas. May be given several times. Default: clean images, and every attack that both were "
    "measured under.",
)
@click.option(
    "--other-run",
    metavar="MATRIX PARAMS",
    nargs=2,
    type=PathType(dir_okay=False, path_type=Path),
    help="The matrix.parquet and the parameter file of another run, in which SECOND is a target. Its test images, its "
    "attacks and the models that craft them must be the same as those of MATRIX; the provenance.json beside each "
    "matrix is compared.",
)
@gradient_option
@format_option
@into_option
@params_option
def command(
    matrix: Path,
    first: str,
    second: str,
    on: tuple[str, ...],
    other_run: tuple[Path, Path] | None,
    gradient: Gradient | None,
    form: Format,
    into: Path | None,
    params: Params,
) -> None:
    """Compare the errors of the targets FIRST and SECOND: differences, 95 % intervals, and p-values.

    MATRIX is a matrix.parquet, such as report/matrix.parquet, which has all seeds; --params names the parameters that
    it was made with. SECOND may belong to another run. Both are compared on the same seeds and images, which are read
    from the examples.parquet beside MATRIX. The p-values are corrected for the number of rows; significant
    differences are bold. With one seed there are no p-values, because one seed shows nothing about training.
    """
    check_place(into, form)
    adversaries = [Adversary.of(text) for text in on]
    gradient = gradient or params.evaluation.gradients[0]
    found, others = read_error_matrix(matrix, params, gradient, image_by_image=True), None
    if other_run is None:
        rows = adversaries or shared_adversaries(found, first, second)
    else:
        file, other_params = other_run[0], read_params(other_run[1])
        others = read_error_matrix(file, other_params, gradient, image_by_image=True)
        found, others = on_shared_seeds(found, others, (params, other_params))
        runs = _finished(matrix, found, params), _finished(file, others, other_params)
        rows = adversaries or shared_adversaries(found, first, second, other=others)
        rows = _comparable(*runs, rows, first, second, chosen=bool(adversaries))
    table = compared_table(found, first, second, rows, other=others)
    put_table(found.seeds.captioned(table), form, into)
    if into is not None:
        echo(f"{into}: {first} and {second} of {matrix}" + (f" and {other_run[0]}" if other_run else ""))


def _comparable(
    one: FinishedRun, other: FinishedRun, rows: Sequence[Adversary], first: str, second: str, *, chosen: bool
) -> list[Adversary]:
    """Return the rows that two runs share, and report those that are left out.

    Raises:
        GradshardError: a chosen row is not shared, or the runs have different images.
    """
    check_comparable(one, other)
    kept = []
    for row in rows:
        reasons = (why_not_comparable(one, other, *cells) for cells in row.cells(first, second))
        reason = next(filter(None, reasons), None)
        if reason is None:
            kept.append(row)
        elif chosen:
            raise GradshardError(f"{row.title} cannot be compared: {reason}: choose others by --on")
        else:
            echo(f"left out: {row.title}: {reason}")
    return kept


def _finished(file: Path, matrix: ErrorMatrix, params: Params) -> FinishedRun:
    """Read the digests that a run's results depend on."""
    place = file.parent / "provenance.json"
    if not place.exists():
        raise GradshardError(f"no {place}, whose digests tell what two runs share: run `gradshard report` there")
    record = read_results(place, remedy="run `gradshard report` again")
    return FinishedRun(matrix, params, record, str(file))
