"""A click group whose commands are imported one at a time, so that listing them costs nothing."""

import importlib
from collections.abc import Mapping

import click


class LazyGroup(click.Group):
    """A group made from a table of names, each with its module and one line of help."""

    def __init__(self, *args: object, table: Mapping[str, tuple[str, str]], heading: str, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._table, self._heading = table, heading

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command: ``MODULE`` holds it as ``command``, ``MODULE:NAME`` as ``NAME``."""
        if cmd_name not in self._table:
            return None
        module, _, name = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section(self._heading):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])
