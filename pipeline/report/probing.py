"""Each model's own gradient, as ``evaluate`` probed it for every seed: tables, flags and curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report import figures
from gradshard.pipeline.report.over_seeds.same_attacks import check_same_measurements
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell
from gradshard.pipeline.report.paper import paper_figures
from gradshard.pipeline.report.table import RateCell, Table, TableCell
from gradshard.pipeline.types import Gradient

# By model and seed.
Probes = Mapping[str, Mapping[int, GradientProbe]]
Records = Mapping[str, Mapping[int, Mapping[str, Any]]]

_PROBES = {
    "noise": "random signs",
    "fgsm_less_alpha": f"{attack_title('fgsm')}, ε − α",
    **{name: attack_title(name) for name in ("fgsm", "ifgsm", "rand_fgsm")},
}
_FULL = 1.0


def records(diagnostics: Mapping[int, Any], gradient: Gradient) -> Records:
    """Return what was measured of each model's gradient, by model and seed, from the diagnostics of every seed."""
    found: dict[str, dict[int, Any]] = {}
    for seed, diagnosed in diagnostics.items():
        for name, record in diagnosed["models"].items():
            if gradient in record:
                found.setdefault(name, {})[seed] = record[gradient]
    swept = {
        seed: {name: [epsilon for epsilon, _ in of[seed]["curve"]] for name, of in found.items() if seed in of}
        for seed in diagnostics
    }
    check_same_measurements(swept, stage="evaluate")
    return found


def restored(measured: Records) -> Probes:
    """Return the probes of some records."""
    return {name: {seed: GradientProbe.restore(its) for seed, its in of.items()} for name, of in measured.items()}


def flags(measured: Records, seeds: Seeds) -> dict[str, Sequence[Mapping[str, str]]]:
    """Return the flags by model, and also by seed where the model or its flags change with the seed."""
    found: dict[str, Sequence[Mapping[str, str]]] = {}
    for name, of in measured.items():
        raised = {seed: record["flags"] for seed, record in of.items()}
        first = next(iter(raised.values()))
        if not seeds.several or (seeds.same(name) and all(its == first for its in raised.values())):
            found[name] = first
        else:
            found |= {f"{name}, seed {seed}": its for seed, its in raised.items()}
    return found


def tables(probes: Probes, called: Mapping[str, str], holdout: str, seeds: Seeds) -> list[Table]:
    """Make the tables of white-box probes, and of FGSM transferred from the holdout model by epsilon."""
    made = (_white_box(probes, called, seeds), _epsilons(probes, holdout, seeds))
    return [table for table in made if table.measured]


def curves(probes: Probes, holdout: str, seeds: Seeds) -> str:
    """Draw the errors against epsilon, under each model's own FGSM and that of the holdout model."""
    own, others = {}, {}
    for name, of in probes.items():
        own[name] = _curve([(probe.curve, probe.n) for probe in _drawn(of, seeds.same(name))])
        if name != holdout:
            others[name] = _curve([(probe.transferred, probe.n) for probe in _drawn(of, seeds.same(name, holdout))])
    panels = {"its own FGSM": own, f"FGSM from {holdout}": others}
    return figures.epsilon_curves({title: lines for title, lines in panels.items() if lines})


def _drawn(probes: Mapping[int, GradientProbe], alike: bool) -> list[GradientProbe]:
    return list(probes.values())[: 1 if alike else None]


def _curve(runs: Sequence[tuple[Mapping[float, int], int]]) -> list[tuple[float, list[float]]]:
    """Return the error rate of every run per epsilon, from counts of errors and numbers of examples."""
    return [(epsilon, [errors[epsilon] / n for errors, n in runs]) for epsilon in sorted(runs[0][0])]


def _white_box(probes: Probes, called: Mapping[str, str], seeds: Seeds) -> Table:
    """Return each model's errors under its own gradient; at epsilon = 1 beside the paper's figure (section 3.3)."""
    rows: list[tuple[str, list[TableCell]]] = []
    for name, of in probes.items():
        cells = [seeds.cell(_clean(of), name), *(seeds.cell(under(of, attack), name) for attack in _PROBES)]
        rows.append((name, [*cells, _at_full_epsilon(of, name, called.get(name, ""), seeds)]))
    table = Table(
        name="white-box-probes",
        title="Each model attacked by its own gradient",
        corner="model",
        columns=["Clean", *_PROBES.values(), "FGSM, ε = 1"],
        rows=rows,
    )
    return seeds.captioned(table)


def _epsilons(probes: Probes, holdout: str, seeds: Seeds) -> Table:
    """Return section 5.3's table: FGSM transferred from the holdout model with every epsilon of the sweep."""
    every = [probe for of in probes.values() for probe in of.values()]
    epsilons = sorted({epsilon for probe in every for epsilon in probe.transferred if epsilon > 0})
    rows = [
        (name, [seeds.cell(transferred(of, epsilon), name, holdout) for epsilon in epsilons])
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


def _clean(probes: Mapping[int, GradientProbe]) -> SeedErrors:
    return SeedErrors({seed: ErrorRate(probe.curve[0.0], probe.n) for seed, probe in probes.items()})


def under(probes: Mapping[int, GradientProbe], attack: str) -> SeedErrors:
    """Return the errors under a model's own attack, by seed."""
    return SeedErrors({seed: probe.rate(attack) for seed, probe in probes.items()})


def transferred(probes: Mapping[int, GradientProbe], epsilon: float) -> SeedErrors:
    """Return the errors under the holdout model's FGSM, by seed."""
    return SeedErrors({seed: ErrorRate(probe.transferred[epsilon], probe.n) for seed, probe in probes.items()})


def _at_full_epsilon(
    probes: Mapping[int, GradientProbe], name: str, called: str, seeds: Seeds
) -> RateCell | TrainingCell:
    measured = {seed: ErrorRate(p.curve[_FULL], p.n) for seed, p in probes.items() if _FULL in p.curve}
    papers = 100 - paper_figures.RIGHT_AT_FULL_EPSILON if called.partition("@")[0] == "A_adv" and measured else None
    return seeds.cell(SeedErrors(measured), name, paper=papers)
