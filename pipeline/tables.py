"""The paper's tables, made from the rows of the error matrix and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.statistics import ErrorRate, tied_for_best
from pipeline.vocabulary import ANY_SOURCE, CLEAN, WORST_CASE

ATTACK_TITLES = {
    CLEAN: "Clean",
    "fgsm": "FGSM",
    "ifgsm": "I-FGSM",
    "rand_fgsm": "RAND+FGSM",
    "mifgsm": "MI-FGSM",
    "pgd": "PGD",
    "cw": "C&W",
    "autoattack": "AutoAttack",
}


@dataclass(frozen=True)
class TableCell:
    """One error rate as it is shown: ``bold`` if it is tied for best, ``marked`` if it is a white box."""

    rate: ErrorRate | None
    bold: bool = False
    marked: bool = False

    @property
    def text(self) -> str:
        """The error rate in percent, or a dash where nothing was measured."""
        return "–" if self.rate is None else f"{100 * self.rate.rate:.1f}"

    @property
    def interval(self) -> str:
        """The 95 % interval in percent."""
        if self.rate is None:
            return "not measured"
        low, high = self.rate.interval
        return f"95 % interval {100 * low:.1f} to {100 * high:.1f}, n = {self.rate.n}"


@dataclass(frozen=True)
class Table:
    """A table of error rates: a corner, column heads, and per row a head and its cells."""

    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[TableCell]]]


@dataclass(frozen=True)
class Matrix:
    """The error matrix, looked up by target, source and attack; of one gradient."""

    rows: Sequence[Mapping[str, Any]]
    gradient: str
    _index: dict[tuple[str, str, str], ErrorRate] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if row["gradient"] in ("", self.gradient):
                key = (row["target"], row["source"], row["attack"])
                self._index[key] = ErrorRate(row["errors"], row["n"])

    def rate(self, target: str, source: str, attack: str) -> ErrorRate | None:
        """The error rate, if it was measured; the source of clean images is empty."""
        return self._index.get((target, source, attack))

    @property
    def targets(self) -> list[str]:
        """All targets, in the order of the matrix."""
        return list(dict.fromkeys(target for target, _, _ in self._index))

    def attacks(self, target: str) -> list[tuple[str, str]]:
        """The source and name of every single attack on a target, in the order of the matrix."""
        return [
            (source, attack) for of, source, attack in self._index if of == target and attack not in (CLEAN, WORST_CASE)
        ]

    def sources(self, attack: str) -> list[str]:
        """The models that crafted the attack, in the order of the matrix."""
        return list(dict.fromkeys(source for _, source, name in self._index if name == attack))


def transfer_table(matrix: Matrix, attack: str, models: Sequence[str]) -> Table:
    """Tables 1 and 8: rows are sources, columns are targets; the diagonal is the white box."""
    sources = [model for model in models if model in matrix.sources(attack)]
    rows = [
        (s, [TableCell(matrix.rate(t, s, attack), marked=s == t) for t in models if t in matrix.targets])
        for s in sources
    ]
    return Table(
        title=f"{ATTACK_TITLES[attack]} examples transferred between models",
        corner="source ↓ target →",
        columns=[model for model in models if model in matrix.targets],
        rows=rows,
    )


def white_box_table(matrix: Matrix, models: Sequence[str]) -> Table:
    """Table 2: FGSM and RAND+FGSM, each model attacked with its own gradient."""
    rows = [
        (ATTACK_TITLES[attack], [TableCell(matrix.rate(model, model, attack)) for model in models])
        for attack in ("fgsm", "rand_fgsm")
    ]
    return Table(title="FGSM and RAND+FGSM, white box", corner="", columns=models, rows=rows)


def worst_case_table(matrix: Matrix, models: Sequence[str]) -> Table:
    """Each model's error when every example meets the attack that fools it, beside its strongest single attack.

    The first is what an adversary reaches who may choose by example, so it is never an average of attacks.
    """
    rows = []
    for model in models:
        single = [matrix.rate(model, source, attack) for source, attack in matrix.attacks(model)]
        strongest = max((rate for rate in single if rate), key=lambda rate: rate.rate, default=None)
        rows.append((model, [TableCell(matrix.rate(model, ANY_SOURCE, WORST_CASE)), TableCell(strongest)]))
    return Table(
        title="Worst case over all attacks and sources, example by example",
        corner="model",
        columns=["worst case", "strongest single attack"],
        rows=rows,
    )


def defence_table(matrix: Matrix, groups: Mapping[str, Sequence[str]], holdout: str) -> Table:
    """Table 4: robust models on clean images, their own FGSM, and all attacks from the holdout model.

    Within each group (the models after the same number of epochs) those tied for best in a column are bold.
    """
    columns = [("", CLEAN, "Clean"), (None, "fgsm", "FGSM")]
    columns += [
        (holdout, attack, f"{ATTACK_TITLES[attack]} from {holdout}") for attack in ("fgsm", "ifgsm", "rand_fgsm")
    ]
    rows: list[tuple[str, list[TableCell]]] = []
    for group, models in groups.items():
        cells = {model: list[TableCell]() for model in models}
        for source, attack, _ in columns:
            rates = [matrix.rate(model, model if source is None else source, attack) for model in models]
            for model, cell in zip(models, _with_ties(rates), strict=True):
                cells[model].append(cell)
        rows += [(f"{model.partition('@')[0]}, {group}", cells[model]) for model in models]
    return Table(
        title="Adversarial training and ensemble adversarial training",
        corner="model",
        columns=[title for _, _, title in columns],
        rows=rows,
    )


def _with_ties(rates: Sequence[ErrorRate | None]) -> list[TableCell]:
    known = [rate for rate in rates if rate is not None]
    ties = iter(tied_for_best(known) if len(known) > 1 else [False] * len(known))
    return [TableCell(rate, bold=rate is not None and next(ties)) for rate in rates]


@dataclass(frozen=True)
class Finding:
    """A finding of the paper, checked on these results: what it says, the figures, and whether it holds."""

    claim: str
    figures: str
    holds: bool


def findings(matrix: Matrix, *, baseline: str, ensemble: str, holdout: str) -> list[Finding]:
    """The paper's three findings on MNIST that survive a change of data, seeds and machine.

    Args:
        matrix: the results.
        baseline: the model of standard adversarial training.
        ensemble: the model of ensemble adversarial training.
        holdout: the source that neither has seen.
    """
    own, transferred = matrix.rate(baseline, baseline, "fgsm"), matrix.rate(baseline, holdout, "fgsm")
    randomised = matrix.rate(baseline, baseline, "rand_fgsm")
    pairs = [
        (
            ATTACK_TITLES[attack],
            matrix.rate(ensemble, holdout, attack),
            matrix.rate(baseline, holdout, attack),
        )
        for attack in ("fgsm", "ifgsm", "rand_fgsm")
    ]
    found = []
    if own and transferred:
        found.append(
            Finding(
                f"{baseline} errs more on FGSM transferred from {holdout} than on its own (section 3.2)",
                f"{_percent(transferred)} against {_percent(own)}",
                transferred.rate > own.rate,
            )
        )
    if own and randomised:
        found.append(
            Finding(
                f"RAND+FGSM beats FGSM on {baseline}, white box (section 4)",
                f"{_percent(randomised)} against {_percent(own)}",
                randomised.rate > own.rate,
            )
        )
    measured = [(name, one, other) for name, one, other in pairs if one and other]
    if measured:
        found.append(
            Finding(
                f"{ensemble} errs less than {baseline} on examples transferred from {holdout} (section 5.3)",
                "; ".join(f"{name} {_percent(one)} against {_percent(other)}" for name, one, other in measured),
                all(one.rate < other.rate for _, one, other in measured),
            )
        )
    return found


def _percent(rate: ErrorRate) -> str:
    return f"{100 * rate.rate:.1f} %"
