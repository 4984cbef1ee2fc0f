"""Tables made by a user's function, ``package.module:function``, called as ``function(rows=ROWS, params=PARAMS)``.

``rows`` are those of the error matrix, each a dictionary with the columns of matrix.parquet; ``params`` are the checked
parameters. The function returns a ``Table``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gradshard.pipeline import plugins
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report.table import Table, TableCell
from gradshard.storage.errors import GradshardError


def custom_table(reference: str, rows: Sequence[Mapping[str, Any]], params: Params) -> Table:
    """Make a table of the results by a user's function.

    Raises:
        GradshardError: there is no such function, it fails, or it returns no table that can be shown.
    """
    what = f"table {reference}"
    function = plugins.find(reference, what=what)
    plugins.check_call(function, {"rows": rows, "params": params}, what=what)
    try:
        table = function(rows=[dict(row) for row in rows], params=params)
    except GradshardError:
        raise
    # A user's code may raise anything.
    except Exception as error:
        raise GradshardError(f"{what} failed ({plugins.explain(error)})") from error
    if not isinstance(table, Table):
        raise GradshardError(
            f"{what} returned a {type(table).__name__} and not a gradshard.pipeline.report.table.Table"
        )
    _check(table, what)
    return table


def _check(table: Table, what: str) -> None:
    if not re.fullmatch(r"[a-z0-9-]+", table.name):
        raise GradshardError(f"{what} is named {table.name!r}: its name is that of a file, so take a-z, 0-9 and -")
    for head, cells in table.rows:
        if not isinstance(head, str):
            raise GradshardError(f"{what} has a row whose head is {head!r}: give text")
        if len(cells) != len(table.columns):
            raise GradshardError(
                f"{what} has {len(table.columns)} columns but {len(cells)} cells in row {head}: give as many"
            )
        strange = [cell for cell in cells if not isinstance(cell, TableCell)]
        if strange:
            raise GradshardError(
                f"{what} has a {type(strange[0]).__name__} in row {head}: give cells, such as NumberCell(number)"
            )
