"""Tables as text: Markdown for papers and issues, CSV for spreadsheets, LaTeX beside them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gradshard.pipeline.report.latex import to_latex
from gradshard.pipeline.report.table import Table, TableCell
from gradshard.storage.errors import GradshardError

_FIELDS = ("value", "low", "high", "wilson_low", "wilson_high", "n", "deviation", "runs", "bold", "paper")
# Columns that a file has only if some cell has such a value.
_OF_SOME = ("varying", "p")


def to_markdown(table: Table) -> str:
    """Return a table in Markdown, and its caption; the paper's figure stands in brackets, ties for best are bold."""
    lines = [[table.corner, *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[head, *(_shown(cell) for cell in cells)] for head, cells in table.rows]
    caption = f"\n{table.caption}\n" if table.caption else ""
    escaped = ([text.replace("|", "\\|") for text in line] for line in lines)
    return "".join("| " + " | ".join(line) + " |\n" for line in escaped) + caption


def to_csv(table: Table) -> str:
    """Return a table as CSV, one line per cell; cells that were not measured are left out.

    ``value`` is in the table's unit, percent for error rates, with both 95 % intervals. Over several seeds it is the
    mean, with the standard deviation and the 95 % interval for seeds and images, and ``varying`` tells what differs
    with the seed. A difference has its ``p``, corrected for all of the table. A field that a cell lacks is empty, as is
    ``paper`` where the paper has no such figure.
    """
    buffer = io.StringIO()
    some = [name for name in _OF_SOME if any(name in cell.fields for _, cells in table.rows for cell in cells)]
    known = {"row", "column", *_FIELDS, *some}
    own = dict.fromkeys(name for _, cells in table.rows for cell in cells for name in cell.fields if name not in known)
    writer = csv.DictWriter(buffer, ["row", "column", *_FIELDS, *some, *own], lineterminator="\n", restval="")
    writer.writeheader()
    for head, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            if cell.fields:
                writer.writerow({"row": head, "column": column, **cell.fields})
    return buffer.getvalue()


def is_table(path: Path) -> bool:
    """Tell whether a file begins as a table that ``files`` gave."""
    with path.open("rb") as file:
        return file.read(64).startswith((b"row,column,value,", b"\\begin{table}\n"))


def files(sections: Sequence[tuple[str, str, Sequence[Table]]]) -> dict[str, str]:
    """Return files with some tables, by path: all in ``tables.md``, each in ``tables/`` as CSV and as LaTeX.

    Args:
        sections: a name, a title, and tables; in files a table's name is followed by that of its section. Name and
            title are empty for tables that belong to no section.

    Raises:
        GradshardError: two tables have the same name.
    """
    named = [
        (title, replace(table, name=f"{table.name}-{name}" if name else table.name))
        for name, title, tables in sections
        for table in tables
    ]
    names = [table.name for _, table in named]
    for name in names:
        if names.count(name) > 1:
            raise GradshardError(
                f"two tables of the report are named {name}: give yours of analysis.tables another name"
            )
    text = "".join(_section(title, table) for title, table in named)
    found = {"tables.md": f"# Tables\n\nError rates are in percent.\n\n{text}"}
    for title, table in named:
        found[f"tables/{table.name}.csv"] = to_csv(table)
        captioned = replace(table, title=f"{table.title}. {title}" if title else table.title)
        found[f"tables/{table.name}.tex"] = to_latex(captioned)
    return found


def _section(title: str, table: Table) -> str:
    belongs = f"{title}.\n\n" if title else ""
    return f"## {table.title}\n\n{belongs}{to_markdown(table)}\n"


def _shown(cell: TableCell) -> str:
    text = f"**{cell.text}**" if cell.bold else cell.text
    return f"{text} ({cell.beside})" if cell.beside else text
