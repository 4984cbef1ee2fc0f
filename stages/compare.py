"""The command ``compare``: two models of a finished run, or two ways of training, held against each other."""

from pathlib import Path

import click

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report.compared import Adversary, compared_table, shared_adversaries
from gradshard.pipeline.types import Gradient
from gradshard.stages.support.matrix_file import read_error_matrix
from gradshard.stages.support.options import gradient_option, params_option
from gradshard.stages.support.places import PathType
from gradshard.stages.support.progress import echo
from gradshard.stages.support.written_table import Format, check_place, format_option, into_option, put_table


@click.command()
@click.argument("matrix", type=PathType(dir_okay=False, path_type=Path))
@click.argument("first")
@click.argument("second")
@click.option(
    "--on",
    "on",
    metavar="ADVERSARY",
    multiple=True,
    help="clean, own:ATTACK or SOURCE:ATTACK, several of either after commas for a worst case; may be given often. "
    "Default: clean images and every attack that both were measured under.",
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
    gradient: Gradient | None,
    form: Format,
    into: Path | None,
    params: Params,
) -> None:
    """Tell where the target FIRST errs less than SECOND: differences, 95 % intervals, and p-values.

    MATRIX is a matrix.parquet, such as report/matrix.parquet, which has all seeds, and --params the parameters it came
    from. Both are compared on the same seeds and images, read from the examples.parquet beside it, and p-values are
    corrected for the number of rows; bold is what they show. With one seed there are none, as it shows nothing about
    training.
    """
    check_place(into, form)
    adversaries = [Adversary.of(text) for text in on]
    found = read_error_matrix(matrix, params, gradient or params.evaluation.gradients[0], image_by_image=True)
    rows = adversaries or shared_adversaries(found, first, second)
    put_table(found.seeds.captioned(compared_table(found, first, second, rows)), form, into)
    if into is not None:
        echo(f"{into}: {first} and {second} of {matrix}")
