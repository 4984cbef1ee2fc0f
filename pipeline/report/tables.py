"""The paper's tables, made from the error matrix and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.ties import tied_for_best
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell
from gradshard.pipeline.report.table import RateCell, Table
from gradshard.pipeline.types import ANY_SOURCE, BEST, CLEAN, WORST_CASE

# The attacks that table 4 transfers from the holdout model.
TRANSFERRED = ("fgsm", "ifgsm", "rand_fgsm")


def transfer_table(matrix: ErrorMatrix, attack: str, models: Sequence[str]) -> Table:
    """Make tables 1 and 8: rows are sources, columns are targets; the diagonal is the white box."""
    sources = [model for model in models if model in matrix.sources(attack)]
    rows = [(s, [matrix.cell(t, s, attack, marked=s == t) for t in models if t in matrix.targets]) for s in sources]
    return Table(
        name=f"transfer-{attack.replace('_', '-')}",
        title=f"{attack_title(attack)} examples transferred between models",
        corner="source ↓ target →",
        columns=[model for model in models if model in matrix.targets],
        rows=rows,
    )


def white_box_table(matrix: ErrorMatrix, models: Sequence[str]) -> Table:
    """Make table 2: FGSM and RAND+FGSM, each model attacked with its own gradient."""
    rows = [
        (attack_title(attack), [matrix.cell(model, model, attack) for model in models])
        for attack in ("fgsm", "rand_fgsm")
    ]
    return Table(name="white-box", title="FGSM and RAND+FGSM, white box", corner="", columns=models, rows=rows)


def worst_case_table(matrix: ErrorMatrix, models: Sequence[str]) -> Table:
    """Return each model's error when every example meets the attack that fools it, beside its strongest single attack.

    The first is the error under an adversary who chooses the attack for each example, so it is never an average of
    attacks.
    """
    rows = []
    for model in models:
        single = [replace(matrix.cell(model, source, attack), paper=None) for source, attack in matrix.attacks(model)]
        strongest = max(single, key=lambda cell: cell.heat or 0.0, default=RateCell(None))
        worst_case = matrix.errors(model, ANY_SOURCE, WORST_CASE)
        crafters = [source for source, _ in matrix.attacks(model)]
        rows.append((model, [matrix.seeds.cell(worst_case, model, *crafters), strongest]))
    return Table(
        name="worst-case",
        title="Worst case over all attacks and sources, example by example",
        corner="model",
        columns=["worst case", "strongest single attack"],
        rows=rows,
    )


@dataclass(frozen=True)
class _Column:
    """A column of errors under one attack from one source, which is none if each model attacks itself."""

    source: str | None
    attack: str
    title: str

    def key(self, model: str) -> tuple[str, str, str]:
        """Return target, source and attack of a model's cell."""
        return (model, model if self.source is None else self.source, self.attack)


def _defence_columns(holdout: str) -> list[_Column]:
    """Return the columns of table 4."""
    transferred = [_Column(holdout, attack, f"{attack_title(attack)} from {holdout}") for attack in TRANSFERRED]
    return [_Column("", CLEAN, "Clean"), _Column(None, "fgsm", "FGSM"), *transferred]


def defence_table(matrix: ErrorMatrix, groups: Mapping[str, Sequence[str]], holdout: str) -> Table:
    """Make table 4: robust models on clean images, their own FGSM, and all attacks from the holdout model.

    Within each group of comparable models, those tied for best in a column are bold; columns in which nothing was
    measured are left out.
    """
    names = [model for models in groups.values() for model in models]
    columns = [c for c in _defence_columns(holdout) if any(matrix.rates(*c.key(model)) for model in names)]
    rows: list[tuple[str, list[RateCell | TrainingCell]]] = []
    for group, models in groups.items():
        cells: dict[str, list[RateCell | TrainingCell]] = {model: [] for model in models}
        for column in columns:
            shown = [matrix.cell(*column.key(model)) for model in models]
            keys = [column.key(model) for model in models]
            ties = tied_for_best(matrix.seeds, [((key[0], key[1]), matrix.errors(*key)) for key in keys])
            for model, cell, tied in zip(models, shown, ties, strict=True):
                cells[model].append(replace(cell, bold=tied))
        rows += [(f"{_trained(model, group)}, {group}", cells[model]) for model in models]
    return Table(
        name="defences",
        title="Adversarial training and ensemble adversarial training",
        corner="model",
        columns=[column.title for column in columns],
        rows=rows,
    )


def _trained(model: str, group: str) -> str:
    """Return a model's name in a group of the table, without the snapshot where the group names it."""
    return model.partition("@")[0] if group == BEST or group.endswith(" epochs") else model


def random_training_table(matrix: ErrorMatrix, models: Sequence[str], holdout: str) -> Table:
    """Make section 4's table: adversarial training on RAND+FGSM examples beside that on FGSM examples."""
    columns = [*_defence_columns(holdout), _Column(None, "rand_fgsm", "RAND+FGSM")]
    return Table(
        name="random-training",
        title="Adversarial training on RAND+FGSM examples",
        corner="model",
        columns=[column.title for column in columns],
        rows=[(model, [matrix.cell(*column.key(model)) for column in columns]) for model in models],
    )


def holdouts_table(matrix: ErrorMatrix, models: Sequence[str], holdouts: Sequence[str]) -> Table:
    """Make section 5.3's table: attacks from each model that no training saw; columns not measured are left out."""
    columns = [
        _Column(source, attack, f"{attack_title(attack)} from {source}")
        for attack in TRANSFERRED
        for source in holdouts
        if any(matrix.rates(model, source, attack) for model in models)
    ]
    return Table(
        name="holdouts",
        title="Examples from each model that no training saw",
        corner="model",
        columns=[column.title for column in columns],
        rows=[(model, [matrix.cell(*column.key(model)) for column in columns]) for model in models],
    )


def gradients_table(matrices: Mapping[str, ErrorMatrix], models: Mapping[str, str], holdout: str) -> Table:
    """Return each attack with each gradient, side by side, on models and the gradient that each was trained on.

    Args:
        matrices: by gradient.
        models: per model, how it was trained (``exact``, ``cross_entropy``, or empty for clean images).
        holdout: the model whose examples are transferred.
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
        f"{attack_title(attack)}{f' from {source}' if source else ''}, {gradient}"
        for source, attack in attacks
        for gradient in matrices
    ]
    return Table("two-gradients", "The same attacks with both gradients", "model", columns, rows)
