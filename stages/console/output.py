"""Results of commands, most of them for stores: one screen for a person, or JSON for a program."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gradshard.stages.console.places import PathType

Command = Callable[..., Any]

_SHOWN = 5


def json_option(command: Command) -> Command:
    """Add ``--json``, passed as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def digest_option(command: Command) -> Command:
    """Add ``--digest``: the store that must be there."""
    return click.option(
        "--digest", default=None, help="The digest (its first 12 characters or more) that the store must have."
    )(command)


def signer_option(command: Command) -> Command:
    """Add ``--signer``: who must have signed the store."""
    return click.option(
        "--signer",
        type=PathType(path_type=Path),
        help="The public key of the signer that the store must have, or the certificates of the signer's authority; "
        "the exit code is 1 if anybody else, or nobody, signed it.",
    )(command)


def tell(result: Mapping[str, object], lines: Sequence[str], *, as_json: bool) -> None:
    """Print a result on standard output."""
    text = json.dumps(result, indent=1, allow_nan=False) if as_json else "\n".join(lines)
    # Names of foreign files may hold bytes that are no UTF-8.
    click.echo(text.encode(errors="backslashreplace").decode())


def table(entries: Mapping[str, object]) -> list[str]:
    """Return names and values in two columns."""
    width = max(map(len, entries))
    return [f"{name:<{width}}  {value}" for name, value in entries.items()]


def found_something() -> click.exceptions.Exit:
    """Return the exit with code 1 that a check raises after it printed what it found."""
    return click.exceptions.Exit(1)


def some(names: Sequence[str]) -> str:
    """Return names for a sentence; of many, the first few."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def passed_over(litter: Sequence[str], foreign: Sequence[str]) -> list[str]:
    """Describe the files in a store's folder that are not the store's own, one line for each kind."""
    lines = (
        [f"passed over {some(litter)}: systems and killed processes leave such files, they do no harm"]
        if litter
        else []
    )
    return [*lines, f"passed over {some(foreign)}: no file of the store"] if foreign else lines


def bytes_text(count: int) -> str:
    """Return a number of bytes for a person, in decimal units."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
