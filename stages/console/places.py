"""Paths and places on the command line that may begin with ``~``, also after an equals sign: ``--cache=~/stores``."""

from typing import Any

import click

from gradshard.storage.home import at_home


class PathType(click.Path):
    """A path of this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check a path, with ``~`` replaced by the home folder."""
        return super().convert(at_home(value) if isinstance(value, str) else value, param, ctx)


class PlaceType(click.types.StringParamType):
    """A path or a URL, as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the place, with ``~`` replaced by the home folder."""
        return at_home(str(super().convert(value, param, ctx)))


PLACE = PlaceType()
