"""The results of all seeds, merged: error matrix, metrics, and everything that they depend on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.evaluation.statistics import mean_and_std
from gradshard.pipeline.report.defences.costs import Costs
from gradshard.pipeline.report.over_seeds.same_attacks import check_same_attacks
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.stages.project.report_files import COSTS, EXAMPLES, MATRIX, ReportFiles
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.formats.json_results import read_results

_STRENGTH = {
    "attack": ("eps", "alpha", "steps", "pgd_steps", "restarts"),
    "evaluation": ("holdout", "seed", "label", "sample"),
}
_AGAIN = "run the stage that writes it again, `gradshard evaluate` or `gradshard report`"


def rows(found: ReportFiles) -> list[dict[str, Any]]:
    """Read the error matrices of all seeds.

    Raises:
        GradshardError: a file is missing, is no error matrix or is that of other seeds, or the seeds were not attacked
            alike.
    """
    read: list[dict[str, Any]] = []
    for seed, folder in found.evaluations.items():
        if not (folder / MATRIX).exists():
            raise GradshardError(
                f"no results at {folder / MATRIX}: run `gradshard evaluate --seed {seed}` (or `dvc repro`) first"
            )
        its = results.read_matrix(folder / MATRIX, seed=seed)
        theirs = dict.fromkeys(row["seed"] for row in its)
        if its and list(theirs) != [seed]:
            raise GradshardError(
                f"{folder / MATRIX} has results of the seeds {', '.join(map(str, theirs))}, not of {seed} alone: name "
                "a folder that has a folder for each seed, or parameters with that seed"
            )
        read += its
    check_same_attacks(read, where=MATRIX)
    return read


def examples(found: ReportFiles) -> dict[int, dict[results.CellKey, tuple[Any, Any]]]:
    """Read by seed which images were classified right; seeds without the file are left out where that is allowed.

    Raises:
        GradshardError: a file is damaged, or is missing and nothing may be left out.
    """
    read: dict[int, dict[results.CellKey, tuple[Any, Any]]] = {}
    for seed, folder in found.evaluations.items():
        if found.has(folder / EXAMPLES):
            read |= results.read_examples(folder / EXAMPLES, seed=seed)
    return read


def costs(found: ReportFiles) -> Costs:
    """Read the costs of the targets, for the seeds that have them: older versions of `evaluate` wrote none."""
    return merged_costs(folder / COSTS for folder in found.evaluations.values())


def merged_costs(files: Iterable[Path]) -> Costs:
    """Read files of costs, each of some seeds, as one; missing files are left out.

    Raises:
        GradshardError: a file is damaged.
    """
    read = [read_results(file, remedy=_AGAIN) for file in files if file.exists()]
    return Costs({int(seed): costs for each in read for seed, costs in each.items()})


def provenance(found: ReportFiles, params: Params) -> dict[str, Any] | None:
    """Return everything that the results depend on: parameters, digests, versions; none if that was not kept.

    Raises:
        GradshardError: a file is missing, and nothing may be left out.
    """
    by_seed = found.each("provenance.json")
    each = list(by_seed.values())
    given = params.model_dump(by_alias=True)
    for seed, its in by_seed.items():
        _check_strength(seed, its["params"], given)
    _check_digests(by_seed)
    if not each or not found.merged:
        return each[0] if each else None
    return {
        "params": json.loads(params.model_dump_json(by_alias=True, exclude={"device", "memory"})),
        "dataset": each[0]["dataset"],
        **{part: {name: value for its in each for name, value in its[part].items()} for part in ("models", "stores")},
        "versions": {
            name: ", ".join(dict.fromkeys(its["versions"][name] for its in each)) for name in each[0]["versions"]
        },
        **({"attacks": each[0]["attacks"]} if "attacks" in each[0] else {}),
    }


def _check_strength(seed: int, recorded: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check that a seed was evaluated with the attacks, and on as many images, as the parameters say."""
    for section, keys in _STRENGTH.items():
        for key in keys:
            wanted = given[section][key]
            before = recorded.get(section, {}).get(key, wanted)
            if before != wanted:
                raise GradshardError(
                    f"seed {seed} was evaluated with {section}.{key} {before}, but the parameters say {wanted}: run "
                    f"`gradshard evaluate --seed {seed}` again, or name the parameters that it was evaluated with"
                )


def _check_digests(each: Mapping[int, Mapping[str, Any]]) -> None:
    """Check that all seeds were evaluated on the same images and with the same static models and stores."""
    digests: dict[tuple[str, str], tuple[int, Any]] = {}
    found = (
        (seed, part, name, digest)
        for seed, its in each.items()
        for part in ("dataset", "models", "stores")
        for name, digest in its[part].items()
    )
    for seed, part, name, digest in found:
        other, first = digests.setdefault((part, name), (seed, digest))
        if digest != first:
            raise GradshardError(
                f"seeds {other} and {seed} were evaluated with different {part} ({name}, by the digests of "
                "provenance.json): run `gradshard evaluate --seed SEED` again for the older one"
            )


def undefined(diagnostics: Mapping[int, Any], seeds: Seeds) -> dict[str, Mapping[str, int]]:
    """Return how often each model's gradient was undefined, by model, and by seed for models that change with it."""
    found: dict[str, Mapping[str, int]] = {}
    for seed, diagnosed in diagnostics.items():
        for name, counts in diagnosed.get("undefined_gradients", {}).items():
            found[f"{name}, seed {seed}" if seeds.several and not seeds.same(name) else name] = counts
    return found


def write(
    into: Path,
    found: ReportFiles,
    rows: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any] | None,
    costs: Costs,
) -> None:
    """Write the results of all seeds beside the page: examples if every seed has them, costs if any has."""
    results.write_matrix(into / MATRIX, rows)
    each = {seed: folder / EXAMPLES for seed, folder in found.evaluations.items()}
    if all(path.exists() for path in each.values()):
        results.merge_examples(into / EXAMPLES, each)
    else:
        (into / EXAMPLES).unlink(missing_ok=True)
    write_text(into / "errors.csv", _errors_csv(rows))
    write_text(into / "metrics.json", json.dumps(_metrics(found), indent=1) + "\n")
    if costs.of:
        write_text(into / COSTS, json.dumps(costs.of, indent=1) + "\n")
    else:
        (into / COSTS).unlink(missing_ok=True)
    if provenance:
        write_text(into / "provenance.json", json.dumps(provenance, indent=1) + "\n")


def _metrics(found: ReportFiles) -> dict[str, dict[str, dict[str, float]]]:
    """Return the columns of the paper's table 4 for every robust model: mean, deviation and number of seeds."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for its in found.each("metrics.json").values():
        for model, columns in its.items():
            for column, rate in columns.items():
                gathered.setdefault(model, {}).setdefault(column, []).append(rate)
    return {
        model: {column: _summary(rates) for column, rates in columns.items()} for model, columns in gathered.items()
    }


def _summary(rates: Sequence[float]) -> dict[str, float]:
    found = mean_and_std(rates)
    deviation = {} if found.deviation is None else {"deviation": found.deviation}
    return {"mean": found.mean, **deviation, "seeds": found.runs}


def _errors_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean of every cell over the seeds as CSV, for ``dvc plots show``, which reads no Parquet."""
    cells: dict[str, list[float]] = {}
    for row in rows:
        source = f" from {row['source']}" if row["source"] else ""
        top = f" top {row['top']}" if row["top"] > 1 else ""
        cells.setdefault(f"{row['attack']} {row['gradient']}{source} on {row['target']}{top}", []).append(
            row["error_rate"]
        )
    return "".join(["cell,error_rate\n", *(f"{cell},{fmean(rates):.4f}\n" for cell, rates in cells.items())])
