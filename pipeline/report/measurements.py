"""Tables of what is no error matrix: the norm of a gradient, its signs, and adversaries who may ask."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report import published
from gradshard.pipeline.report.table import NumberCell, RateCell, Table, TableCell

_MOMENTS = ("mean", "deviation")


def gradient_norms_table(measured: Mapping[str, Mapping[str, Any]], called: Mapping[str, str]) -> Table:
    """Table 7: mean and standard deviation of the L2 norm of the loss's gradient, over all test images.

    Both as fp32 cross-entropy gives them, as the paper's are, and exactly.
    """
    rows: list[tuple[str, list[TableCell]]] = []
    for name, found in measured.items():
        papers = published.GRADIENT_NORMS.get(called.get(name, "").partition("@")[0], (None, None))
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
    """Section 6: FGSM from a substitute grown on the target's labels, by queries in all."""
    queries = [row["queries"] for row in next(iter(targets.values()))["substitute"]]
    rows: list[tuple[str, list[TableCell]]] = [
        (name, [RateCell(ErrorRate(row["errors"], row["n"])) for row in found["substitute"]])
        for name, found in targets.items()
    ]
    return Table(
        "substitutes",
        "FGSM from a substitute grown on the target's labels",
        "target",
        [f"{count} queries" for count in queries],
        rows,
    )


def forest_table(forest: Mapping[str, Any], *, compared: bool) -> Table:
    """Appendix C: a random forest on clean images and on a CNN's FGSM examples; beside the paper if ``compared``."""
    rows: list[tuple[str, Sequence[TableCell]]] = []
    for row in forest["rows"]:
        head = f"FGSM from {row['source']}, {row['gradient']}" if row["source"] else "clean"
        papers = published.FOREST["fgsm" if row["source"] else "clean"] if compared else None
        rows.append((head, [RateCell(ErrorRate(row["errors"], row["n"]), paper=papers)]))
    return Table("forest", f"A random forest of {forest['trees']} trees", "images", ["error"], rows)
