"""Tables as text: Markdown for papers and issues, CSV for spreadsheets."""

import csv
import io

from pipeline.tables import Table, TableCell

_CSV_HEAD = ("row", "column", "error_percent", "low", "high", "wilson_low", "wilson_high", "n", "bold", "paper_percent")


def markdown(table: Table) -> str:
    """A table in Markdown; the paper's figure stands in brackets, ties for best are bold."""
    lines = [[table.corner, *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[head, *(_shown(cell) for cell in cells)] for head, cells in table.rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def comma_separated(table: Table) -> str:
    """A table as CSV, one line a cell, in percent with both 95 % intervals; cells that were not measured are left out.

    ``paper_percent`` is empty where the paper has no such figure.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_CSV_HEAD)
    for head, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            if cell.rate is not None:
                percent = [100 * x for x in (cell.rate.rate, *cell.rate.interval, *cell.rate.wilson)]
                paper = "" if cell.paper is None else cell.paper
                writer.writerow([head, column, *(f"{x:.4f}" for x in percent), cell.rate.n, int(cell.bold), paper])
    return buffer.getvalue()


def _shown(cell: TableCell) -> str:
    text = f"**{cell.text}**" if cell.bold else cell.text
    return f"{text} ({cell.beside})" if cell.beside else text
