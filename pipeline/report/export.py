"""Tables as text: Markdown for papers and issues, CSV for spreadsheets."""

import csv
import io

from gradshard.pipeline.report.table import Table, TableCell

_FIELDS = ("value", "low", "high", "wilson_low", "wilson_high", "n", "deviation", "runs", "bold", "paper")
_OVER_SEEDS = "varying"


def to_markdown(table: Table) -> str:
    """A table in Markdown, and its caption; the paper's figure stands in brackets, ties for best are bold."""
    lines = [[table.corner, *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[head, *(_shown(cell) for cell in cells)] for head, cells in table.rows]
    caption = f"\n{table.caption}\n" if table.caption else ""
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + caption


def to_csv(table: Table) -> str:
    """A table as CSV, one line a cell; cells that were not measured are left out.

    ``value`` is in the table's unit, for error rates percent, with both 95 % intervals, or mean and deviation over
    runs that differ in their seed; ``varying`` then tells what differs with it. What a cell has not is empty, ``paper``
    where the paper has no such figure.
    """
    buffer = io.StringIO()
    over = [_OVER_SEEDS] if any(_OVER_SEEDS in cell.fields for _, cells in table.rows for cell in cells) else []
    writer = csv.DictWriter(buffer, ["row", "column", *_FIELDS, *over], lineterminator="\n", restval="")
    writer.writeheader()
    for head, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            if cell.fields:
                writer.writerow({"row": head, "column": column, **cell.fields})
    return buffer.getvalue()


def _shown(cell: TableCell) -> str:
    text = f"**{cell.text}**" if cell.bold else cell.text
    return f"{text} ({cell.beside})" if cell.beside else text
