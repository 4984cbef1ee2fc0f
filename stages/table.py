"""The command ``table``: a table of a finished run, in Markdown, LaTeX or CSV, put into a README or a paper."""

from pathlib import Path

import click

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report import selection
from gradshard.pipeline.report.registry import Results, make_tables
from gradshard.pipeline.report.table import Table
from gradshard.pipeline.types import Gradient
from gradshard.stages.console.options import gradient_option, params_option
from gradshard.stages.console.places import PathType
from gradshard.stages.console.progress import echo
from gradshard.stages.console.written_table import Format, check_place, format_option, into_option, put_table
from gradshard.stages.project.matrix_file import read_error_matrix
from gradshard.stages.project.merging import merged_costs
from gradshard.stages.project.report_files import COSTS
from gradshard.storage.errors import GradshardError


@click.command()
@click.argument("matrix", type=PathType(path_type=Path))
@click.option(
    "--name", default="defences", show_default=True, help="The name of the table; a wrong name lists the tables."
)
@gradient_option
@format_option
@into_option
@params_option
def command(
    matrix: Path, name: str, gradient: Gradient | None, form: Format, into: Path | None, params: Params
) -> None:
    """Make a table of the report from an error matrix: by default the paper's table 4, in Markdown.

    MATRIX is a matrix.parquet, such as report/matrix.parquet, which has all seeds; --params names the parameters that
    it was made with. For several seeds, intervals and ties for best need the examples.parquet of the same run beside
    MATRIX. With --into, the table replaces the text between two marks in a file, so that its figures are never copied
    by hand. The LaTeX table needs the package booktabs.
    """
    check_place(into, form)
    chosen = gradient or params.evaluation.gradients[0]
    put_table(named_table(matrix, params, chosen, name), form, into)
    if into is not None:
        echo(f"{into}: table of {matrix}, gradient {chosen}")


def named_table(matrix: Path, params: Params, gradient: Gradient, name: str = "defences") -> Table:
    """Return a table of the report, with the paper's figures where it has them.

    Raises:
        GradshardError: there is no table of that name, or there are no results of the parameters' seeds.
    """
    found = read_error_matrix(matrix, params, gradient)
    shown = selection.shown_targets(params, gradient)
    costs = merged_costs([matrix.parent / COSTS])
    tables = make_tables(Results(params, found, shown, selection.compared(params, shown), costs))
    for table in tables:
        if table.name == name:
            return table
    raise GradshardError(f"{matrix} has no table {name}: choose one of {', '.join(table.name for table in tables)}")
