"""Tables in LaTeX, for papers: booktabs rules, and every character with a meaning in TeX escaped."""

import re

from gradshard.pipeline.report.table import Table, TableCell

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    # In the default font encoding these three print as other characters.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the beginning of a row TeX would take these for arguments of the row end before.
    "[": "{[}",
    "*": "{*}",
    # Characters beyond ASCII in the report's tables; letters with accents need no escape.
    "–": "--",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
}
_MINUS = re.compile(r"(?<![\w.)-])-(?=\.?\d)")


def to_latex(table: Table) -> str:
    """Return a ``table`` environment: caption, label ``tab:<name>`` and ``tabular``; it needs the package booktabs.

    As in Markdown, the paper's figure stands in brackets, and ties for best are bold.
    """
    caption = f"{table.title}. {table.caption}" if table.caption else table.title
    head = _row([escaped(text) for text in (table.corner, *table.columns)])
    rows = "".join(_row([escaped(head), *map(_shown, cells)]) for head, cells in table.rows)
    return (
        "\\begin{table}\n"
        "  \\centering\n"
        f"  \\caption{{{escaped(caption)}}}\n"
        f"  \\label{{tab:{table.name}}}\n"
        f"  \\begin{{tabular}}{{l{'r' * len(table.columns)}}}\n"
        f"    \\toprule\n{head}    \\midrule\n{rows}    \\bottomrule\n"
        "  \\end{tabular}\n"
        "\\end{table}\n"
    )


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it is: nothing in it is a command, and a minus before a number is no hyphen."""
    return "".join(_ESCAPED.get(character, character) for character in _MINUS.sub("−", text))


def _row(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\\n"


def _shown(cell: TableCell) -> str:
    text = rf"\textbf{{{escaped(cell.text)}}}" if cell.bold else escaped(cell.text)
    return f"{text} ({escaped(cell.beside)})" if cell.beside else text
