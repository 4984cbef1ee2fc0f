"""What all stage commands have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.params import FILE_NAME, Params, read_params

Command = Callable[..., Any]


def params_option(command: Command) -> Command:
    """Add ``--params`` and pass the checked parameters to the command as ``params``."""
    return click.option(
        "--params",
        "params",
        default=FILE_NAME,
        show_default=True,
        callback=_read,
        help="The parameter file.",
        type=click.Path(dir_okay=False, path_type=Path),
    )(command)


def workers_option(command: Command) -> Command:
    """Add ``--workers``."""
    return click.option(
        "--workers",
        default=0,
        show_default=True,
        type=click.IntRange(min=0),
        help="Worker processes of a local Dask cluster; 0 computes in this process, on all its cores.",
    )(command)


def _read(context: click.Context, option: click.Parameter, value: Path) -> Params:
    del context, option
    return read_params(value)
