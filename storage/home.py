"""The home folder in paths that a person wrote: a shell knows ``~`` at the start of a word and nowhere else."""

import os.path
from pathlib import Path


def at_home(place: str) -> str:
    """Put the home folder for ``~`` or ``~user`` at the start of a path; URLs and unknown users stay as they are."""
    return os.path.expanduser(place)  # noqa: PTH111, Path's own raises for an unknown user


def path_of(place: str) -> Path:
    """Make a path of what a person wrote."""
    return Path(at_home(place))
