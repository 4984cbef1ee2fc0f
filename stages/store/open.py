"""Options for the folder that keeps what was read of remote stores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from gradshard.stages.console.places import PathType

Command = Callable[..., Any]


def cache_options(command: Command) -> Command:
    """Add ``--cache`` and ``--cache-size``."""
    options = (
        click.option(
            "--cache",
            default=".partial/stores",
            show_default=True,
            type=PathType(file_okay=False, path_type=Path),
            help="The folder in which shards of remote stores are kept; it may be deleted at any time.",
        ),
        click.option(
            "--cache-size",
            default="10 GiB",
            show_default=True,
            callback=_bytes,
            help="The largest size of the shards kept there for one store.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _bytes(context: click.Context, option: click.Parameter, value: str) -> int:
    del context, option
    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError as error:
        raise click.BadParameter(f"{value} is no number of bytes such as 500 MB or 10 GiB") from error
