"""The page and the record of an examination: one model, whoever trained it."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.evaluation.examination import NOISE, AttackResult, Examination, title_of
from gradshard.pipeline.evaluation.gradient_masking import MEANINGS
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report import figures
from gradshard.pipeline.report.table import NumberCell, RateCell, Table, TableCell
from gradshard.pipeline.report.templates import template
from gradshard.pipeline.types import ANY_SOURCE, CLEAN, SELF, WORST_CASE

_OWN = "its own gradient"


def record(found: Examination) -> dict[str, Any]:
    """Return what an examination found as plain values for JSON; rates are shares, intervals are Wilson's at 95 %."""
    strength = found.plan.strength
    worst = {"attack": WORST_CASE, "source": ANY_SOURCE, **_rate(found.worst_case)}
    return {
        "masked": found.masked,
        "flags": [
            {"name": flag.name, "says": flag.says, "figures": flag.figures, "means": MEANINGS[flag.name]}
            for flag in found.flags
        ],
        "attack": {**vars(strength), "gradient": found.plan.gradient, "seed": found.plan.seed},
        "errors": [*(_result(result, strength) for result in found.results), worst],
        "withheld": dict(found.withheld),
        "probe": found.probe.record(),
    }


def page(found: Examination, about: Mapping[str, Any]) -> str:
    """Write an examination as one HTML page that works offline.

    Args:
        found: what was found.
        about: ``model``, ``dataset``, ``sources``, ``versions`` and ``left_out``, as the JSON record has them.
    """
    raised = {flag.name for flag in found.flags}
    sources = found.plan.sources
    probe = found.probe
    curves: dict[str, Sequence[tuple[float, Sequence[float]]]] = {_OWN: _curve(probe.curve, probe.n)}
    if sources:
        curves[f"from {sources[0]}"] = _curve(probe.transferred, probe.n)
    return template("examination.html").render(
        **about,
        found=found,
        noise=NOISE,
        quiet={name: means for name, means in MEANINGS.items() if name not in raised},
        meanings=MEANINGS,
        worst=RateCell(found.worst_case),
        clean=RateCell(found.error(CLEAN)),
        errors=errors_table(found),
        constraints=constraints_table(found),
        curves_svg=figures.epsilon_curves({"FGSM": curves}),
    )


def errors_table(found: Examination) -> Table:
    """Return the model's error under every attack, with a column per crafter; the last row is the worst case."""
    measured = {(result.attack, result.source): result.error for result in found.results}
    sources = [SELF, *found.plan.sources]
    rows: list[tuple[str, Sequence[TableCell]]] = [("Clean", _first(found.error(CLEAN), sources))]
    for attack in dict.fromkeys(attack for attack, _ in measured if attack != CLEAN):
        cells = [
            RateCell(measured.get((attack, source)), marked=source == SELF and attack != NOISE) for source in sources
        ]
        rows.append((title_of(attack), cells))
    rows.append(("Worst case, example by example", _first(found.worst_case, sources)))
    return Table("errors", "Error under every attack", "attack", [_OWN, *(f"from {s}" for s in sources[1:])], rows)


def constraints_table(found: Examination) -> Table:
    """Return how far each set of adversarial examples goes, and its least and largest pixel."""
    rows: list[tuple[str, Sequence[TableCell]]] = []
    for result in found.results:
        reach = result.reach
        if reach is not None:
            crafted = "" if result.attack == NOISE else f", {_OWN if result.source == SELF else result.source}"
            numbers = (reach.furthest, reach.low, reach.high, reach.violations)
            rows.append((title_of(result.attack) + crafted, [NumberCell(n) for n in numbers]))
    columns = ["furthest pixel", "least pixel", "largest pixel", "examples outside"]
    return Table("constraints", "Do adversarial examples keep to ε and to [0, 1]?", "attack", columns, rows)


def _first(rate: ErrorRate, sources: Sequence[str]) -> list[RateCell]:
    return [RateCell(rate), *(RateCell(None) for _ in sources[1:])]


def _curve(errors: Mapping[float, int], n: int) -> list[tuple[float, list[float]]]:
    return [(epsilon, [count / n]) for epsilon, count in sorted(errors.items())]


def _result(result: AttackResult, strength: AttackConfig) -> dict[str, Any]:
    reach = {"reach": vars(result.reach)} if result.reach else {}
    epsilon = 0.0 if result.attack == CLEAN else strength.epsilon
    return {"attack": result.attack, "source": result.source, "eps": epsilon, **_rate(result.error), **reach}


def _rate(rate: ErrorRate) -> dict[str, Any]:
    low, high = rate.wilson
    return {"n": rate.n, "errors": rate.errors, "error_rate": rate.rate, "wilson_low": low, "wilson_high": high}
