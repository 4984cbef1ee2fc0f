"""A check that the models of all seeds were attacked alike, so that their errors may be averaged."""

from collections.abc import Iterable, Mapping
from typing import Any

from gradshard.storage.errors import GradshardError

_CELL = ("target", "source", "attack", "gradient", "top")
# The columns of the matrix that say how strong an attack was, and about whose label.
STRENGTH = ("eps", "alpha", "steps", "label")


def check_same_measurements(measured: Mapping[int, Mapping[str, object]], *, stage: str) -> None:
    """Check that what was tried on a model, such as epsilons or queries, is the same with every seed.

    Args:
        measured: what was tried, by seed and model.
        stage: the command that measures it, for the message.

    Raises:
        GradshardError: seeds differ, because some were measured with other parameters; the message names two.
    """
    first: dict[str, tuple[int, object]] = {}
    for seed, models in measured.items():
        for name, tried in models.items():
            other, one = first.setdefault(name, (seed, tried))
            if tried != one:
                raise GradshardError(
                    f"{name} was measured with {one} with seed {other} and {tried} with seed {seed}: run `gradshard "
                    f"{stage} --seed SEED` again for each seed that was measured with other parameters"
                )


def check_same_attacks(rows: Iterable[Mapping[str, Any]], *, where: str) -> None:
    """Check that an attack has one strength and label in the error matrices of all seeds.

    Args:
        rows: the rows of the matrices.
        where: where they were read, for the message.

    Raises:
        GradshardError: seeds differ, because some were evaluated with other parameters; the message names two.
    """
    first: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for row in rows:
        one = first.setdefault(tuple(row[key] for key in _CELL), row)
        unlike = [key for key in STRENGTH if one[key] != row[key]]
        if unlike:
            key = unlike[0]
            raise GradshardError(
                f"{where}: {row['attack']} on {row['target']} has {key} {one[key]} with seed {one['seed']} and "
                f"{row[key]} with seed {row['seed']}: run `gradshard evaluate --seed SEED` again for each seed that "
                "was evaluated with other parameters"
            )
