"""Tables of what is no error matrix: probes of a gradient, its norm and signs, and adversaries who may ask."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report import published
from gradshard.pipeline.report.seeds import Seeds
from gradshard.pipeline.report.table import NumberCell, RateCell, SeedsCell, Table, TableCell

_PROBES = {
    "noise": "random signs",
    "fgsm_less_alpha": f"{attack_title('fgsm')}, ε − α",
    **{name: attack_title(name) for name in ("fgsm", "ifgsm", "rand_fgsm")},
}
_FULL = 1.0
_MOMENTS = ("mean", "deviation")

# By model and seed.
Probes = Mapping[str, Mapping[int, GradientProbe]]


def probes_table(probes: Probes, called: Mapping[str, str], seeds: Seeds) -> Table:
    """Each model's errors under its own gradient; at epsilon = 1 beside the paper's figure (section 3.3)."""
    rows: list[tuple[str, list[TableCell]]] = []
    for name, of in probes.items():
        cells = [seeds.cell(_clean(of), name), *(seeds.cell(_under(of, attack), name) for attack in _PROBES)]
        rows.append((name, [*cells, _at_full_epsilon(of, name, called.get(name, ""), seeds)]))
    table = Table(
        name="white-box-probes",
        title="Each model attacked by its own gradient",
        corner="model",
        columns=["Clean", *_PROBES.values(), "FGSM, ε = 1"],
        rows=rows,
    )
    return seeds.captioned(table)


def epsilons_table(probes: Probes, holdout: str, seeds: Seeds) -> Table:
    """Section 5.3: FGSM transferred from the holdout model with every epsilon of the sweep."""
    every = [probe for of in probes.values() for probe in of.values()]
    epsilons = sorted({epsilon for probe in every for epsilon in probe.transferred if epsilon > 0})
    rows = [
        (name, [seeds.cell(_transferred(of, epsilon), name, holdout) for epsilon in epsilons])
        for name, of in probes.items()
        if name != holdout
    ]
    table = Table(
        name="epsilons",
        title=f"FGSM transferred from {holdout}, by ε",
        corner="model",
        columns=[f"ε = {epsilon:g}" for epsilon in epsilons],
        rows=rows,
    )
    return seeds.captioned(table)


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


def _clean(probes: Mapping[int, GradientProbe]) -> dict[int, ErrorRate]:
    return {seed: ErrorRate(probe.curve[0.0], probe.n) for seed, probe in probes.items()}


def _under(probes: Mapping[int, GradientProbe], attack: str) -> dict[int, ErrorRate]:
    return {seed: probe.rate(attack) for seed, probe in probes.items()}


def _transferred(probes: Mapping[int, GradientProbe], epsilon: float) -> dict[int, ErrorRate]:
    return {seed: ErrorRate(probe.transferred[epsilon], probe.n) for seed, probe in probes.items()}


def _at_full_epsilon(probes: Mapping[int, GradientProbe], name: str, called: str, seeds: Seeds) -> RateCell | SeedsCell:
    measured = {seed: ErrorRate(p.curve[_FULL], p.n) for seed, p in probes.items() if _FULL in p.curve}
    papers = 100 - published.RIGHT_AT_FULL_EPSILON if called.partition("@")[0] == "A_adv" and measured else None
    return seeds.cell(measured, name, paper=papers)
