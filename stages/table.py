"""The command ``table``: a table of a finished run, in Markdown, LaTeX or CSV, put into a README or a paper."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import click

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report import export, latex, paper_figures, selection
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.registry import Results, make_tables
from gradshard.pipeline.report.seeds import Seeds
from gradshard.pipeline.report.table import Table
from gradshard.pipeline.types import Gradient
from gradshard.stages.support.merging import merged_costs
from gradshard.stages.support.options import params_option
from gradshard.stages.support.places import PathType
from gradshard.stages.support.progress import echo
from gradshard.stages.support.report_files import COSTS, EXAMPLES
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results
from gradshard.storage.formats.atomic import write_text

Format = Literal["markdown", "latex", "csv"]

_WRITTEN: Mapping[Format, Callable[[Table], str]] = {
    "markdown": export.to_markdown,
    "latex": latex.to_latex,
    "csv": export.to_csv,
}
# Lines between which a file keeps its table: comments, in both languages.
_MARKS = {
    "markdown": ("<!-- gradshard table: begin -->", "<!-- gradshard table: end -->"),
    "latex": ("% gradshard table: begin", "% gradshard table: end"),
}


@click.command()
@click.argument("matrix", type=PathType(dir_okay=False, path_type=Path))
@click.option("--name", default="defences", show_default=True, help="The table; a wrong name lists those there are.")
@click.option("--gradient", type=click.Choice(["exact", "cross_entropy"]), help="Default: the first evaluated.")
@click.option(
    "--format", "form", type=click.Choice(list(_WRITTEN)), default="markdown", show_default=True, help="Its language."
)
@click.option(
    "--into", type=PathType(dir_okay=False, path_type=Path), help="The file it belongs in; default: print it."
)
@params_option
def command(
    matrix: Path, name: str, gradient: Gradient | None, form: Format, into: Path | None, params: Params
) -> None:
    """Make a table of the report from an error matrix: by default the paper's table 4, in Markdown.

    MATRIX is a matrix.parquet, such as report/matrix.parquet, which has all seeds, and --params the parameters it came
    from. Over several seeds, intervals and ties for best take the examples.parquet of the same run beside it. With
    --into the table replaces what stands between the two marks of a file, so that its figures are never copied by hand.
    LaTeX needs the package booktabs.
    """
    if into is not None and form not in _MARKS:
        raise GradshardError(f"{into} cannot keep a table in {form}, which has no comments: leave --into out")
    chosen = gradient or params.evaluation.gradients[0]
    text = _WRITTEN[form](named_table(matrix, params, chosen, name))
    if into is None:
        click.echo(text, nl=False)
    else:
        write_text(into, replaced(into, text, _MARKS[form]))
        echo(f"{into}: table of {matrix}, gradient {chosen}")


def named_table(matrix: Path, params: Params, gradient: Gradient, name: str = "defences") -> Table:
    """A table of the report, with the paper's figures where it has them.

    Raises:
        GradshardError: there is none of that name, or no results of the parameters' seeds.
    """
    rows = _rows(matrix, params)
    measured = {row["seed"] for row in rows}
    seeds = Seeds.of_params(params, [seed for seed in params.seeds if seed in measured])
    beside = matrix.parent / EXAMPLES
    # Reading them takes long, and of one seed only worst cases over some of a battery's sources follow from them.
    wanted = seeds.several or params.evaluation.battery is not None
    examples = results.read_examples(beside, seed=params.seeds[0]) if wanted and beside.exists() else {}
    found = ErrorMatrix(rows, gradient, seeds, paper_figures.names(params), examples=examples)
    shown = selection.shown_targets(params, gradient)
    costs = merged_costs([matrix.parent / COSTS])
    tables = make_tables(Results(params, found, shown, selection.compared(params, shown), costs))
    for table in tables:
        if table.name == name:
            return table
    raise GradshardError(f"{matrix} has no table {name}: choose one of {', '.join(table.name for table in tables)}")


def _rows(matrix: Path, params: Params) -> list[dict[str, Any]]:
    """The results of the seeds that the parameters list."""
    found = results.read_matrix(matrix, seed=params.seeds[0])
    rows = [row for row in found if row["seed"] in params.seeds]
    if found and not rows:
        theirs, listed = dict.fromkeys(row["seed"] for row in found), ", ".join(map(str, params.seeds))
        raise GradshardError(
            f"{matrix} has results of the seeds {', '.join(map(str, theirs))}, and none of {listed}: name the "
            "parameters that it came from by --params, or list its seeds there"
        )
    return rows


def replaced(file: Path, table: str, marks: tuple[str, str]) -> str:
    """The text of a file with the table between its marks.

    Raises:
        GradshardError: it is missing, or has not the two marks.
    """
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise GradshardError(
            f"{file} has no place for a table: put the lines {marks[0]} and {marks[1]} where it belongs"
        )
    return f"{before}{begin}\n{table}{end}{after}"
