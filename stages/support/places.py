"""Paths and places on the command line, in which ``~`` is the home folder wherever it stands: ``--cache=~/stores``."""

from typing import Any

import click

from gradshard.storage.home import at_home


class PathType(click.Path):
    """A path of this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check a path, with the home folder put in."""
        return super().convert(at_home(value) if isinstance(value, str) else value, param, ctx)


class PlaceType(click.types.StringParamType):
    """A path or a URL, as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give the place, with the home folder put in."""
        return at_home(str(super().convert(value, param, ctx)))


PLACE = PlaceType()
