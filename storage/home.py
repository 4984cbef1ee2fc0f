"""The home folder in paths that a person wrote: a shell knows ``~`` at the start of a word and nowhere else."""

import os.path
from pathlib import Path

from gradshard.storage.errors import GradshardError


def at_home(place: str) -> str:
    """Put the home folder for ``~`` or ``~user`` at the start of a path; URLs and unknown users stay as they are."""
    return os.path.expanduser(place)  # noqa: PTH111, Path's own raises for an unknown user


def path_of(place: str) -> Path:
    """Make a path of what a person wrote.

    Raises:
        GradshardError: it begins with ``~NAME``, and nobody of that name has a home folder.
    """
    path = Path(at_home(place))
    if path.parts and path.parts[0].startswith("~"):
        raise GradshardError(f"{place}: there is no home folder for {path.parts[0]}: write it out")
    return path
