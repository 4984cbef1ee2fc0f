"""The command ``table``: the table of defences of a finished run, put into a Markdown file such as a README."""

from pathlib import Path

import click

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report import export, published, selection, tables
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.types import Gradient
from gradshard.stages.support.options import params_option
from gradshard.stages.support.places import PathType
from gradshard.stages.support.progress import say
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results
from gradshard.storage.formats.atomic import write_text

_BEGIN, _END = "<!-- gradshard table: begin -->", "<!-- gradshard table: end -->"


@click.command()
@click.argument("matrix", type=PathType(dir_okay=False, path_type=Path))
@click.option("--gradient", type=click.Choice(["exact", "cross_entropy"]), help="Default: the first evaluated.")
@click.option("--into", type=PathType(dir_okay=False, path_type=Path), help="The Markdown file; default: print it.")
@params_option
def command(matrix: Path, gradient: Gradient | None, into: Path | None, params: Params) -> None:
    """Make the paper's table 4 from an error matrix, in Markdown.

    MATRIX is a matrix.parquet and --params the parameters it came from. With --into the table replaces what stands
    between the two marks of a file, so that its figures are never copied by hand.
    """
    chosen = gradient or params.evaluation.gradients[0]
    text = defences(matrix, params, chosen)
    if into is None:
        click.echo(text, nl=False)
    else:
        write_text(into, replaced(into, text))
        say(f"{into}: table of {matrix}, gradient {chosen}")


def defences(matrix: Path, params: Params, gradient: Gradient) -> str:
    """The table of defences in Markdown, with the paper's figures where it has them."""
    found = ErrorMatrix(results.read_matrix(matrix), gradient, published.names(params))
    groups = selection.compared(params, selection.shown_targets(params, gradient))
    return export.to_markdown(tables.defence_table(found, groups, params.evaluation.holdout))


def replaced(file: Path, table: str) -> str:
    """The text of a Markdown file with the table between its marks.

    Raises:
        GradshardError: it is missing, or has not the two marks.
    """
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise GradshardError(f"{file} has no place for a table: put the lines {_BEGIN} and {_END} where it belongs")
    return f"{before}{begin}\n{table}{end}{after}"
