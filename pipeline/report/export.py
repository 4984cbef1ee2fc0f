"""Tables as text: Markdown for papers and issues, CSV for spreadsheets."""

import csv
import io

from gradshard.pipeline.report.table import Table, TableCell

_FIELDS = ("value", "low", "high", "wilson_low", "wilson_high", "n", "deviation", "runs", "bold", "paper")


def to_markdown(table: Table) -> str:
    """A table in Markdown; the paper's figure stands in brackets, ties for best are bold."""
    lines = [[table.corner, *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[head, *(_shown(cell) for cell in cells)] for head, cells in table.rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def to_csv(table: Table) -> str:
    """A table as CSV, one line a cell; cells that were not measured are left out.

    ``value`` is in the table's unit, for error rates percent, with both 95 % intervals, or mean and deviation over
    runs. What a cell has not is empty, ``paper`` where the paper has no such figure.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["row", "column", *_FIELDS], lineterminator="\n", restval="")
    writer.writeheader()
    for head, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            if cell.fields:
                writer.writerow({"row": head, "column": column, **cell.fields})
    return buffer.getvalue()


def _shown(cell: TableCell) -> str:
    text = f"**{cell.text}**" if cell.bold else cell.text
    return f"{text} ({cell.beside})" if cell.beside else text
