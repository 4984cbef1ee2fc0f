"""The home folder in paths that a person wrote, since a shell expands ``~`` only at the start of a word."""

import os.path
from pathlib import Path

from gradshard.storage.errors import GradshardError


def at_home(place: str) -> str:
    """Replace ``~`` or ``~user`` at the start of a path; leave URLs and unknown users as they are."""
    return os.path.expanduser(place)  # noqa: PTH111, Path's own raises for an unknown user


def path_of(place: str) -> Path:
    """Return the path that a person wrote, with ``~`` expanded.

    Raises:
        GradshardError: it begins with ``~NAME``, but there is no home folder for NAME.
    """
    path = Path(at_home(place))
    if path.parts and path.parts[0].startswith("~"):
        raise GradshardError(f"{place}: there is no home folder for {path.parts[0]}: write it out")
    return path
