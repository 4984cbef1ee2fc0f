"""Order of the names of classes, which numbers their labels."""

from collections.abc import Sequence


def misnumbered(names: Sequence[str]) -> str | None:
    """Find a name that is a number and whose place is another, in names that all are numbers but not in their order.

    Args:
        names: of the classes, by label.

    Returns:
        The first name that stands elsewhere than in the order of the numbers; none if all are in that order, or some
        are no numbers.
    """
    if not all(name.isdecimal() for name in names):
        return None
    return next((name for name, number in zip(names, sorted(names, key=int), strict=True) if name != number), None)
