"""Tables of what is no error matrix: the norm of a gradient, its signs, and adversaries who may ask."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report import paper_figures
from gradshard.pipeline.report.table import NumberCell, RateCell, Table, TableCell

_MOMENTS = ("mean", "deviation")


def gradient_norms_table(measured: Mapping[str, Mapping[str, Any]], called: Mapping[str, str]) -> Table:
    """Table 7: mean and standard deviation of the L2 norm of the loss's gradient, over all test images.

    Both as fp32 cross-entropy gives them, as the paper's are, and exactly.
    """
    rows: list[tuple[str, list[TableCell]]] = []
    for name, found in measured.items():
        papers = paper_figures.GRADIENT_NORMS.get(called.get(name, "").partition("@")[0], (None, None))
        rounded = [
            NumberCell(found["norm_cross_entropy"][key], paper=p) for key, p in zip(_MOMENTS, papers, strict=True)
        ]
        rows.append((name, [*rounded, *(NumberCell(found["norm"][key]) for key in _MOMENTS)]))
    columns = ["mean, cross-entropy", "standard deviation, cross-entropy", "mean, exact", "standard deviation, exact"]
    return Table("gradient-norms", "Norm of the input gradient", "model", columns, rows)


def wrong_signs_table(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """The share of pixels whose sign is not that of float64, in percent, with the 95 % interval of its mean."""
    rows: list[tuple[str, list[TableCell]]] = []
    for name, found in measured.items():
        shares = [
            NumberCell(100 * found[key]["mean"], note=_mean_interval(found[key]))
            for key in ("wrong_signs_cross_entropy", "wrong_signs")
        ]
        zeros = RateCell(ErrorRate(found["zero_rows_cross_entropy"], found["wrong_signs"]["examples"]))
        rows.append((name, [*shares, zeros]))
    columns = ["cross-entropy, %", "exact, %", "images whose gradient is all 0, cross-entropy, %"]
    return Table("wrong-signs", "Signs that fp32 gets wrong, against float64", "model", columns, rows)


# Counts of the test images by who fools a model on them, and of those that the source alone does.
_FOOLED = {"own": "its own", "other": "the source's", "other_alone": "the source's alone", "own_alone": "its own alone"}
_CURVED = {"near_own": "near the image its own is steeper", "falls_again": "its own peaks before ε"}


def directions_table(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """Figure 2 over the whole test set: which FGSM samples fool a model, and how its loss is curved where they differ.

    The first columns are shares of all test images in percent, the last of those that the source's sample alone fools.
    """
    rows: list[tuple[str, list[TableCell]]] = []
    for name, its in measured.items():
        found = its.get("directions")
        if found and found["source"] != name:
            shares: list[TableCell] = [RateCell(ErrorRate(found[key], found["n"])) for key in _FOOLED]
            rows.append((f"{name}, source {found['source']}", [*shares, *(_of_chosen(found, key) for key in _CURVED)]))
    columns = [*_FOOLED.values(), *(f"of these: {name}" for name in _CURVED.values())]
    return Table("directions", "Who fools it, by FGSM: figure 2 over the test set", "model", columns, rows)


def _of_chosen(found: Mapping[str, int], key: str) -> RateCell:
    return RateCell(ErrorRate(found[key], found["other_alone"]) if found["other_alone"] else None)


def _mean_interval(summary: Mapping[str, float]) -> str:
    half = 1.96 * summary["deviation"] / summary["examples"] ** 0.5
    return f"95 % interval {100 * (summary['mean'] - half):.3g} to {100 * (summary['mean'] + half):.3g}"


def estimation_table(targets: Mapping[str, Any]) -> Table:
    """Section 6: RAND+FGSM with gradients estimated from confidences, by queries an image, and with the true one."""
    queries = [row["queries_per_example"] for row in next(iter(targets.values()))["estimation"]["estimated"]]
    rows: list[tuple[str, list[TableCell]]] = []
    for name, found in targets.items():
        estimated, true = found["estimation"]["estimated"], found["estimation"]["true_gradient"]
        rows.append((name, [RateCell(ErrorRate(row["errors"], row["n"])) for row in (*estimated, true)]))
    columns = [*(f"{count} queries an image" for count in queries), "true gradient"]
    return Table("estimated-gradients", "RAND+FGSM by gradients estimated from confidences", "target", columns, rows)


def substitute_table(targets: Mapping[str, Any]) -> Table:
    """Section 6: FGSM from a substitute grown on the target's labels, by queries in all; a row a target and epsilon."""
    queries = [row["queries"] for row in next(iter(targets.values()))["substitute"]]
    rows: list[tuple[str, list[TableCell]]] = []
    for name, found in targets.items():
        for epsilon, counts in _by_epsilon(found["substitute"]).items():
            head = f"{name}, ε = {epsilon:g}" if epsilon is not None else name
            rows.append((head, [RateCell(ErrorRate(errors, n)) for errors, n in counts]))
    return Table(
        "substitutes",
        "FGSM from a substitute grown on the target's labels",
        "target",
        [f"{count} queries" for count in queries],
        rows,
    )


def _by_epsilon(rounds: Sequence[Mapping[str, Any]]) -> dict[float | None, list[tuple[int, int]]]:
    """Errors and examples of each round, by epsilon; by none where results of an older gradshard have only one."""
    found: dict[float | None, list[tuple[int, int]]] = {}
    for row in rounds:
        for tried in row.get("sweep", [{"epsilon": None, "errors": row["errors"]}]):
            found.setdefault(tried["epsilon"], []).append((tried["errors"], row["n"]))
    return found


# What the errors of a forest are counted of.
_OF = {"of all images": ("errors", "n"), "of those it had right": ("errors_of_right", "right")}
_OF |= {"of those that fool the source": ("errors_of_fooling", "fooling")}


def forest_table(forest: Mapping[str, Any], *, compared: bool) -> Table:
    """Appendix C: a random forest on clean images and on a CNN's FGSM examples; beside the paper if ``compared``.

    The paper does not say what its rate is one of, nor of which epsilon besides 0.3.
    """
    rows: list[tuple[str, Sequence[TableCell]]] = []
    for row in forest["rows"]:
        at = f", ε = {row['epsilon']:g}" if "epsilon" in row else ""
        head = f"FGSM from {row['source']}, {row['gradient']}{at}" if row["source"] else "clean"
        papers = paper_figures.FOREST["fgsm" if row["source"] else "clean"]
        told = compared and row.get("epsilon", paper_figures.FOREST_EPSILON) == paper_figures.FOREST_EPSILON
        rows.append((head, [_share(row, of, papers if told else None) for of in _OF.values()]))
    return Table("forest", f"A random forest of {forest['trees']} trees: errors", "images", list(_OF), rows)


def _share(row: Mapping[str, Any], of: tuple[str, str], paper: float | None) -> RateCell:
    errors, n = of
    return RateCell(ErrorRate(row[errors], row[n]) if row.get(n) else None, paper=paper)
