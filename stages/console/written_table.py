"""Output of a table in Markdown, LaTeX or CSV, printed or put between two marks of a file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import click

from gradshard.pipeline.report import export, latex
from gradshard.pipeline.report.table import Table
from gradshard.stages.console.places import PathType
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_bytes

Format = Literal["markdown", "latex", "csv"]

_WRITTEN: Mapping[Format, Callable[[Table], str]] = {
    "markdown": export.to_markdown,
    "latex": latex.to_latex,
    "csv": export.to_csv,
}
# Lines that enclose the table in a file: comments, in both languages.
_MARKS = {
    "markdown": ("<!-- gradshard table: begin -->", "<!-- gradshard table: end -->"),
    "latex": ("% gradshard table: begin", "% gradshard table: end"),
}

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(list(_WRITTEN)),
    default="markdown",
    show_default=True,
    help="The format of the table.",
)
into_option = click.option(
    "--into",
    type=PathType(dir_okay=False, path_type=Path),
    help="The file to put the table into, between its two marks; default: print the table.",
)


def check_place(into: Path | None, form: Format) -> None:
    """Refuse to put a table into a file of a language without comments, which cannot have the marks.

    Raises:
        GradshardError: a file is given, and its language has no comments.
    """
    if into is not None and form not in _MARKS:
        raise GradshardError(f"{into} cannot keep a table in {form}, which has no comments: leave --into out")


def put_table(table: Table, form: Format, into: Path | None) -> None:
    """Print a table, or write it between the marks of a file.

    Raises:
        GradshardError: the file is missing, is not UTF-8, or has not the two marks, each once, as lines of their own.
    """
    text = _WRITTEN[form](table)
    if into is None:
        click.echo(text, nl=False)
    else:
        _put(into.resolve(), text, _MARKS[form])


def _put(file: Path, table: str, marks: tuple[str, str]) -> None:
    """Write a table between the marks of a file, which keeps its line endings and its mode."""
    text = _replaced(file, table, marks)
    mode = file.stat().st_mode
    write_bytes(file, text.encode())
    file.chmod(mode)


def _replaced(file: Path, table: str, marks: tuple[str, str]) -> str:
    """Return the text of a file with the table between its marks."""
    if not file.exists():
        raise GradshardError(
            f"there is no file {file}: write it, with the lines {marks[0]} and {marks[1]} where the table belongs"
        )
    try:
        lines = file.read_bytes().decode("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise GradshardError(f"{file} is not UTF-8, so no table is put into it: convert it first") from error
    begins, ends = ([at for at, line in enumerate(lines) if line.strip() == mark] for mark in marks)
    if not begins and not ends:
        raise GradshardError(
            f"{file} has no place for a table: put the lines {marks[0]} and {marks[1]} where it belongs"
        )
    if len(begins) != 1 or len(ends) != 1 or begins > ends:
        raise GradshardError(
            f"{file} has the line {marks[0]} {len(begins)} times and {marks[1]} {len(ends)} times: it must have each "
            "once, the first before the second"
        )
    line_end = "\r\n" if lines[begins[0]].endswith("\r\n") else "\n"
    return "".join([*lines[: begins[0] + 1], table.replace("\n", line_end), *lines[ends[0] :]])
