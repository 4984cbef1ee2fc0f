"""Two finished runs side by side: what they must share for targets of both to be compared."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.compared import Cell
from gradshard.pipeline.report.over_seeds.same_attacks import STRENGTH
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.storage.errors import GradshardError

# Attacks with restarts, which the rows of the matrix do not record.
_RESTARTED = ("pgd", "cw", "autoattack")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    ``matrix`` is its error matrix, ``params`` the parameters that it came from, ``record`` the content of its
    provenance.json, and ``name`` the file by which messages name it.
    """

    matrix: ErrorMatrix
    params: Params
    record: Mapping[str, Any]
    name: str

    def recorded(self, *keys: str) -> Any:
        """Return what the record has at a path of keys; none if it has nothing there."""
        found: Any = self.record
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def digest(self, model: str, seed: int) -> str | None:
        """Return the digest of a model in the run of a seed; none if the run has no such model."""
        found: str | None = self.recorded("models", self.params.in_run(model, seed))
        return found

    def strength(self, target: str, source: str, attack: str) -> set[tuple[object, ...]]:
        """Return the strengths, with labels, at which a source attacked a target; one, unless seeds differ."""
        matrix = self.matrix
        return {
            tuple(row.get(name) for name in STRENGTH)
            for row in matrix.rows
            if (row["target"], row["source"], row["attack"]) == (target, source, attack)
            and row["gradient"] == matrix.gradient
        }


def on_shared_seeds(
    first: ErrorMatrix, second: ErrorMatrix, params: tuple[Params, Params]
) -> tuple[ErrorMatrix, ErrorMatrix]:
    """Return two runs' matrices without the seeds that only one of them has.

    Raises:
        GradshardError: they have no seed in common.
    """
    shared = tuple(seed for seed in first.seeds.of if seed in second.seeds.of)
    if not shared:
        raise GradshardError(
            f"one run has the seeds {_listed(first.seeds.of)} and the other {_listed(second.seeds.of)}: none is shared"
        )
    one, other = (
        replace(
            matrix,
            rows=[row for row in matrix.rows if row["seed"] in shared],
            seeds=replace(Seeds.of_params(its, shared), two_runs=True),
        )
        for matrix, its in zip((first, second), params, strict=True)
    )
    return one, other


def check_comparable(first: FinishedRun, second: FinishedRun) -> None:
    """Check that two runs are of the same test images, and that their parameters are those they came from.

    Raises:
        GradshardError: they are not, or it is not known; the message says which.
    """
    between = f"{first.name} and {second.name} cannot be compared:"
    _check_parameters(first)
    _check_parameters(second)
    images = [run.recorded("dataset", "test") for run in (first, second)]
    if None in images:
        raise GradshardError(f"{between} the provenance.json of one does not say which test images it is of")
    if images[0] != images[1]:
        raise GradshardError(f"{between} they are of different test images")


def why_not_comparable(first: FinishedRun, second: FinishedRun, one: Cell, other: Cell) -> str | None:
    """Tell why a cell of one run cannot be compared with one of another; none if both are of one attack and source.

    The source of a target's own attack is the target.
    """
    (target, source, attack), (other_target, other_source, _) = one, other
    for run, cell in ((first, one), (second, other)):
        if not run.matrix.rates(*cell):
            return f"{run.name} did not measure {target if run is first else other_target} under {attack}"
    if first.strength(*one) != second.strength(*other) or _unlike_code(first, second, attack):
        return f"{attack} was not the same attack in both runs (by its eps, alpha, steps, restarts, label or code)"
    if (source, other_source) == (target, other_target):
        return None
    for seed in first.matrix.seeds.of:
        if first.digest(source, seed) is None or first.digest(source, seed) != second.digest(other_source, seed):
            return f"{source} is not the same model in the runs of seed {seed} (by the digests of provenance.json)"
    return None


def _check_parameters(run: FinishedRun) -> None:
    """Refuse parameters that name other models than the run had: digests would be looked up for the wrong models."""
    given = run.params.model_dump(mode="json", by_alias=True, include={"static", "robust", "stand_ins"})
    for part, its in given.items():
        recorded = run.recorded("params", part)
        if not isinstance(recorded, Mapping):  # a single seed's record has none
            continue
        named = {str(key): value for key, value in its.items()}
        # Names are enough, because digests tell how models were trained; but stand-ins decide which digest is compared.
        if named != recorded if part == "stand_ins" else set(named) != set(recorded):
            raise GradshardError(
                f"the parameters given for {run.name} name other models under {part} than its provenance.json: give "
                "those that it came from"
            )


def _unlike_code(first: FinishedRun, second: FinishedRun, attack: str) -> bool:
    """Tell whether an attack has more restarts in one run, or is a user's own whose code differs."""
    places = [("params", "attack", "custom", attack), ("attacks", attack)]
    if attack in _RESTARTED:
        places.append(("params", "attack", "restarts"))
    return any(first.recorded(*place) != second.recorded(*place) for place in places)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
