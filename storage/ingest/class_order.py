"""Order of the class names, which determines the labels."""

from collections.abc import Sequence


def misnumbered(names: Sequence[str]) -> str | None:
    """Find the first name that is not at its place in numerical order, if all names are numbers.

    Args:
        names: of the classes, by label.

    Returns:
        The first such name; none if all are in numerical order, or if some are not numbers.
    """
    if not all(name.isdecimal() for name in names):
        return None
    return next((name for name, number in zip(names, sorted(names, key=int), strict=True) if name != number), None)
