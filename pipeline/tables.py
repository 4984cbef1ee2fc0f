"""The paper's tables, made from the rows of the error matrix and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline import paper
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
    """One error rate as it is shown: ``bold`` if it is tied for best, ``marked`` if it is a white box.

    ``paper`` is the paper's figure for it, in percent, where there is one.
    """

    rate: ErrorRate | None
    bold: bool = False
    marked: bool = False
    paper: float | None = None

    @property
    def text(self) -> str:
        """The error rate in percent, or a dash where nothing was measured."""
        return "–" if self.rate is None else f"{100 * self.rate.rate:.1f}"

    @property
    def beside(self) -> str:
        """The paper's figure and how far the measured one is above it, in points; empty if either is missing."""
        if self.rate is None or self.paper is None:
            return ""
        above = round(100 * self.rate.rate - self.paper, 1) + 0.0  # never "-0.0"
        return f"paper {self.paper:.1f}, {above:+.1f}"

    @property
    def interval(self) -> str:
        """The 95 % interval in percent."""
        if self.rate is None:
            return "not measured"
        low, high = self.rate.interval
        wilson_low, wilson_high = self.rate.wilson
        return (
            f"95 % interval {100 * low:.1f} to {100 * high:.1f} (Wilson {100 * wilson_low:.1f} to "
            f"{100 * wilson_high:.1f}), n = {self.rate.n}"
        )


@dataclass(frozen=True)
class Table:
    """A table of error rates: a corner, column heads, and per row a head and its cells; ``name`` is for its file."""

    name: str
    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[TableCell]]]


@dataclass(frozen=True)
class Matrix:
    """The error matrix, looked up by target, source and attack; of one gradient.

    ``called`` gives the paper's names of our models, for its figures to stand beside ours.
    """

    rows: Sequence[Mapping[str, Any]]
    gradient: str
    called: Mapping[str, str] = field(default_factory=dict)
    _index: dict[tuple[str, str, str], ErrorRate] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if row["gradient"] in ("", self.gradient):
                key = (row["target"], row["source"], row["attack"])
                self._index[key] = ErrorRate(row["errors"], row["n"])

    def rate(self, target: str, source: str, attack: str) -> ErrorRate | None:
        """The error rate, if it was measured; the source of clean images is empty."""
        return self._index.get((target, source, attack))

    def cell(self, target: str, source: str, attack: str, *, marked: bool = False) -> TableCell:
        """The error rate as a table shows it, with the paper's figure."""
        return TableCell(self.rate(target, source, attack), marked=marked, paper=self.papers(target, source, attack))

    def papers(self, target: str, source: str, attack: str) -> float | None:
        """The paper's figure for the same error rate, in percent, if it has one."""
        names = (self.called.get(target, ""), self.called.get(source, ""))
        return paper.ERRORS.get((*names, attack))

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
    rows = [(s, [matrix.cell(t, s, attack, marked=s == t) for t in models if t in matrix.targets]) for s in sources]
    return Table(
        name=f"transfer-{attack.replace('_', '-')}",
        title=f"{ATTACK_TITLES[attack]} examples transferred between models",
        corner="source ↓ target →",
        columns=[model for model in models if model in matrix.targets],
        rows=rows,
    )


def white_box_table(matrix: Matrix, models: Sequence[str]) -> Table:
    """Table 2: FGSM and RAND+FGSM, each model attacked with its own gradient."""
    rows = [
        (ATTACK_TITLES[attack], [matrix.cell(model, model, attack) for model in models])
        for attack in ("fgsm", "rand_fgsm")
    ]
    return Table(name="white-box", title="FGSM and RAND+FGSM, white box", corner="", columns=models, rows=rows)


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
        name="worst-case",
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
            shown = [matrix.cell(model, model if source is None else source, attack) for model in models]
            for model, cell in zip(models, _with_ties(shown), strict=True):
                cells[model].append(cell)
        rows += [(f"{model.partition('@')[0]}, {group}", cells[model]) for model in models]
    return Table(
        name="defences",
        title="Adversarial training and ensemble adversarial training",
        corner="model",
        columns=[title for _, _, title in columns],
        rows=rows,
    )


def gradients_table(matrices: Mapping[str, Matrix], models: Mapping[str, str], holdout: str) -> Table:
    """Each attack with each gradient, side by side, on models and the gradient that each was trained on.

    Args:
        matrices: by gradient.
        models: per model, how it was trained (``exact``, ``cross_entropy``, or empty for clean images).
        holdout: whose examples are transferred.
    """
    attacks = [(None, "fgsm"), (None, "rand_fgsm"), (holdout, "fgsm"), (holdout, "ifgsm"), (holdout, "rand_fgsm")]
    rows = [
        (
            f"{model}, trained on {trained} signs" if trained else model,
            [m.cell(model, source or model, attack) for source, attack in attacks for m in matrices.values()],
        )
        for model, trained in models.items()
    ]
    columns = [
        f"{ATTACK_TITLES[attack]}{f' from {source}' if source else ''}, {gradient}"
        for source, attack in attacks
        for gradient in matrices
    ]
    return Table("two-gradients", "The same attacks with both gradients", "model", columns, rows)


def _with_ties(cells: Sequence[TableCell]) -> list[TableCell]:
    known = [cell.rate for cell in cells if cell.rate is not None]
    ties = iter(tied_for_best(known) if len(known) > 1 else [False] * len(known))
    return [replace(cell, bold=cell.rate is not None and next(ties)) for cell in cells]


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
