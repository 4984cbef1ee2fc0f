"""Tables of results outside the error matrix: the norm of a gradient, its signs, and adversaries who may query."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.pipeline.report.paper import paper_figures
from gradshard.pipeline.report.table import Table, TableCell

_MOMENTS = ("mean", "deviation")
# Measurements, by seed and then by model.
BySeed = Mapping[int, Mapping[str, Mapping[str, Any]]]
ByModel = dict[str, dict[int, Mapping[str, Any]]]


def by_model(measured: BySeed) -> ByModel:
    """Return the measurements of each model, by seed; a model that no seed changes has those of the first alone."""
    found: ByModel = {}
    for seed, models in measured.items():
        for name, its in models.items():
            found.setdefault(name, {})[seed] = its
    return found


def gradient_norms_table(measured: BySeed, seeds: Seeds, called: Mapping[str, str]) -> Table:
    """Make table 7: mean and standard deviation of the L2 norm of the loss's gradient, over all test images.

    Both are given as fp32 cross-entropy computes them, like the paper's, and exactly.
    """
    rows: list[tuple[str, list[TableCell]]] = []
    for name, found in by_model(measured).items():
        papers = paper_figures.GRADIENT_NORMS.get(called.get(name, "").partition("@")[0], (None, None))
        rounded = [
            seeds.number(_each(found, "norm_cross_entropy", key), name, paper=paper)
            for key, paper in zip(_MOMENTS, papers, strict=True)
        ]
        rows.append((name, [*rounded, *(seeds.number(_each(found, "norm", key), name) for key in _MOMENTS)]))
    columns = ["mean, cross-entropy", "standard deviation, cross-entropy", "mean, exact", "standard deviation, exact"]
    return Table("gradient-norms", "Norm of the input gradient", "model", columns, rows)


def wrong_signs_table(measured: BySeed, seeds: Seeds) -> Table:
    """Return the share of pixels whose sign differs from float64's, in percent, with the 95 % interval of its mean."""
    rows: list[tuple[str, list[TableCell]]] = []
    for name, found in by_model(measured).items():
        first = next(iter(found.values()))
        shares = [
            seeds.number(_each(found, key, "mean", scale=100), name, note=_mean_interval(first[key]))
            for key in ("wrong_signs_cross_entropy", "wrong_signs")
        ]
        zeros = {
            seed: ErrorRate(its["zero_rows_cross_entropy"], its["wrong_signs"]["examples"])
            for seed, its in found.items()
        }
        rows.append((name, [*shares, seeds.cell(SeedErrors(zeros), name)]))
    columns = ["cross-entropy, %", "exact, %", "images whose gradient is all 0, cross-entropy, %"]
    return Table("wrong-signs", "Signs that fp32 gets wrong, against float64", "model", columns, rows)


def _each(found: Mapping[int, Mapping[str, Any]], measured: str, key: str, *, scale: float = 1) -> dict[int, float]:
    return {seed: scale * its[measured][key] for seed, its in found.items()}


# Counts of test images by whose sample fools the model, and counts among those that the source's alone fools.
_FOOLED = {"own": "its own", "other": "the source's", "other_alone": "the source's alone", "own_alone": "its own alone"}
_CURVED = {"near_own": "near the image its own is steeper", "falls_again": "its own peaks before ε"}


def directions_table(measured: BySeed, seeds: Seeds) -> Table:
    """Make the table for figure 2: which FGSM samples fool a model, and how its loss is curved where they differ.

    It is over the whole test set: the first columns are shares of all its images in percent, the last ones of those
    that only the source's sample fools.
    """
    rows: list[tuple[str, list[TableCell]]] = []
    for name, each in by_model(measured).items():
        found = {seed: its["directions"] for seed, its in each.items() if its.get("directions")}
        source = next((its["source"] for its in found.values()), name)
        if source != name:
            shares = [_shares(found, key, "n", seeds, name) for key in _FOOLED]
            curved = [_shares(found, key, "other_alone", seeds, name) for key in _CURVED]
            rows.append((f"{name}, source {source}", [*shares, *curved]))
    columns = [*_FOOLED.values(), *(f"of these: {name}" for name in _CURVED.values())]
    return Table("directions", "Who fools it, by FGSM: figure 2 over the test set", "model", columns, rows)


def _shares(
    found: Mapping[int, Mapping[str, Any]], errors: str, n: str, seeds: Seeds, name: str, paper: float | None = None
) -> TableCell:
    """Return the cell of a share, over the seeds in which its denominator is known and not 0."""
    rates = {seed: ErrorRate(its[errors], its[n]) for seed, its in found.items() if its.get(n)}
    return seeds.cell(SeedErrors(rates), name, paper=paper)


def _mean_interval(summary: Mapping[str, float]) -> str:
    half = 1.96 * summary["deviation"] / summary["examples"] ** 0.5
    return f"95 % interval {100 * (summary['mean'] - half):.3g} to {100 * (summary['mean'] + half):.3g}"


def estimation_table(targets: BySeed, seeds: Seeds) -> Table:
    """Make section 6's table of RAND+FGSM by estimated gradients, by queries per image, and by the true gradient.

    Gradients are estimated from confidences.
    """
    rows: list[tuple[str, list[TableCell]]] = []
    queries: list[int] = []
    for name, found in by_model(targets).items():
        tried = {seed: its["estimation"] for seed, its in found.items()}
        queries = [row["queries_per_example"] for row in next(iter(tried.values()))["estimated"]]
        each = [{seed: its["estimated"][at] for seed, its in tried.items()} for at in range(len(queries))]
        true = {seed: its["true_gradient"] for seed, its in tried.items()}
        rows.append((name, [_shares(counts, "errors", "n", seeds, name) for counts in (*each, true)]))
    columns = [*(f"{count} queries an image" for count in queries), "true gradient"]
    return Table("estimated-gradients", "RAND+FGSM by gradients estimated from confidences", "target", columns, rows)


def substitute_table(targets: BySeed, seeds: Seeds) -> Table:
    """Make section 6's table of FGSM from a substitute: by queries in all, with a row per target and epsilon."""
    rows: list[tuple[str, list[TableCell]]] = []
    queries: list[int] = []
    for name, found in by_model(targets).items():
        queries = [row["queries"] for row in next(iter(found.values()))["substitute"]]
        tried = {seed: _by_epsilon(its["substitute"]) for seed, its in found.items()}
        for epsilon in next(iter(tried.values())):
            head = f"{name}, ε = {epsilon:g}" if epsilon is not None else name
            each = [{seed: its[epsilon][at] for seed, its in tried.items()} for at in range(len(queries))]
            rows.append((head, [_shares(counts, "errors", "n", seeds, name) for counts in each]))
    return Table(
        "substitutes",
        "FGSM from a substitute grown on the target's labels",
        "target",
        [f"{count} queries" for count in queries],
        rows,
    )


def queries(of: Mapping[str, Any]) -> str:
    """Return in words how many queries each round and each estimated gradient took, and at what epsilon."""
    rounds, estimated = of["substitute"], of["estimation"]["estimated"]
    epsilons = ", ".join(f"{epsilon:g}" for epsilon in _by_epsilon(rounds) if epsilon is not None)
    in_all = ", ".join(str(row["queries"]) for row in rounds)
    an_image = ", ".join(str(row["queries_per_example"]) for row in estimated)
    return f"{in_all} queries at epsilon {epsilons or 'attack.eps'} and {an_image} an image"


def _by_epsilon(rounds: Sequence[Mapping[str, Any]]) -> dict[float | None, list[dict[str, int]]]:
    """Return errors and examples of each round, by epsilon, which is none where an older gradshard had only one."""
    found: dict[float | None, list[dict[str, int]]] = {}
    for row in rounds:
        for tried in row.get("sweep", [{"epsilon": None, "errors": row["errors"]}]):
            found.setdefault(tried["epsilon"], []).append({"errors": tried["errors"], "n": row["n"]})
    return found


# The keys of a forest's errors and of the examples among which they are counted.
_OF = {"of all images": ("errors", "n"), "of those it had right": ("errors_of_right", "right")}
_OF |= {"of those that fool the source": ("errors_of_fooling", "fooling")}


def forest_table(forests: Mapping[int, Mapping[str, Any]], seeds: Seeds, *, compared: bool) -> Table:
    """Make appendix C's table: a random forest on clean images and on FGSM examples; beside the paper if ``compared``.

    The paper does not give the denominator of its rate, nor rates for another epsilon than 0.3.
    """
    counted: dict[str, dict[int, Mapping[str, Any]]] = {}
    for seed, forest in forests.items():
        for row in forest["rows"]:
            at = f", ε = {row['epsilon']:g}" if "epsilon" in row else ""
            head = f"FGSM from {row['source']}, {row['gradient']}{at}" if row["source"] else "clean"
            counted.setdefault(head, {}).setdefault(seed, row)
    rows: list[tuple[str, Sequence[TableCell]]] = []
    for head, found in counted.items():
        first = next(iter(found.values()))
        papers = paper_figures.FOREST["fgsm" if first["source"] else "clean"]
        told = compared and first.get("epsilon", paper_figures.FOREST_EPSILON) == paper_figures.FOREST_EPSILON
        cells = [
            _shares(found, errors, n, seeds, first["source"], papers if told else None) for errors, n in _OF.values()
        ]
        rows.append((head, cells))
    trees = next((forest["trees"] for forest in forests.values()), 0)
    return Table("forest", f"A random forest of {trees} trees: errors", "images", list(_OF), rows)
