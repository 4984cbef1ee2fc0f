"""Sentences of the paper about MNIST, each checked against error rates over seeds.

Only sentences that say that one error rate of the matrix is higher than another are here; docs/findings.md has all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.evaluation.paired_defences import ONE_SEED, PairedDifference, correct_for_number
from gradshard.pipeline.report import selection
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seed_errors import difference, of_one_seed, shared_seeds
from gradshard.pipeline.report.over_seeds.verdicts import ClaimedDifference
from gradshard.pipeline.report.table import Table
from gradshard.pipeline.report.tables import TRANSFERRED
from gradshard.pipeline.types import BEST, CLEAN

# Target, source and attack of an error rate; and two error rates, of which the first should be the higher.
Rate = tuple[str, str, str]
Claimed = tuple[Rate, Rate]


@dataclass(frozen=True)
class Roles:
    """Our models by the parts of the paper's; a robust model is listed once for every epoch that was measured."""

    undefended: Sequence[str]
    holdout: str
    other_holdouts: Sequence[str]
    baselines: Sequence[str]
    ensembles: Sequence[str]
    random: Sequence[str]
    other_baselines: Sequence[str]
    epochs: Mapping[str, int]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Baseline and ensemble after the same epochs."""
        ensembles = {self.after(name): name for name in self.ensembles}
        return [(name, ensembles[self.after(name)]) for name in self.baselines if self.after(name) in ensembles]

    def after(self, name: str) -> int:
        """Return after how many epochs a robust model or a snapshot is."""
        base, _, epoch = name.partition("@")
        return int(epoch or self.epochs[base])

    @property
    def same_architecture(self) -> Sequence[str]:
        """The undefended models besides the holdout: those of the robust models' architecture."""
        return [name for name in self.undefended if name != self.holdout]


def _epochs(name: str) -> str:
    """Return the epoch in which a snapshot's name ends; empty for a final model."""
    return name.partition("@")[2]


@dataclass(frozen=True)
class Finding:
    """A sentence of the paper in our words, its section, and pairs of error rates, the first claimed to be higher."""

    section: str
    says: str
    claimed: Callable[[Roles], Sequence[Claimed]]


def _higher_for_baselines(attack: str) -> Callable[[Roles], Sequence[Claimed]]:
    """Claim for every pair of baseline and ensemble that the baseline errs more on an attack from the holdout."""
    return lambda r: [((b, r.holdout, attack), (e, r.holdout, attack)) for b, e in r.pairs]


FINDINGS: Sequence[Finding] = (
    Finding(
        "3.2",
        "adversarial training makes a model err less on its own FGSM",
        lambda r: [((u, u, "fgsm"), (m, m, "fgsm")) for u in r.same_architecture for m in r.baselines],
    ),
    Finding(
        "3.2",
        "adversarial training makes a model err less on FGSM from another model",
        lambda r: [((u, r.holdout, "fgsm"), (m, r.holdout, "fgsm")) for u in r.same_architecture for m in r.baselines],
    ),
    Finding(
        "3.2",
        "an adversarially trained model errs more on FGSM from another model than on its own",
        lambda r: (
            [((m, r.holdout, "fgsm"), (m, m, "fgsm")) for m in r.baselines]
            + [((m, s, "fgsm"), (m, m, "fgsm")) for m in r.other_baselines for s in r.same_architecture]
        ),
    ),
    Finding(
        "3.1",
        "FGSM transfers better from another architecture than from the same",
        lambda r: [((m, r.holdout, "fgsm"), (m, s, "fgsm")) for m in r.baselines for s in r.same_architecture],
    ),
    Finding(
        "3.3",
        "FGSM from an adversarially trained model is easier for all than from an undefended one",
        lambda r: (
            [((r.holdout, s, "fgsm"), (r.holdout, m, "fgsm")) for s in r.same_architecture for m in r.baselines]
            + [((u, r.holdout, "fgsm"), (u, m, "fgsm")) for u in r.same_architecture for m in r.baselines]
        ),
    ),
    Finding(
        "4",
        "RAND+FGSM beats FGSM on every model, white box",
        lambda r: [((m, m, "rand_fgsm"), (m, m, "fgsm")) for m in (*r.undefended, *r.baselines, *r.ensembles)],
    ),
    Finding(
        "4",
        "RAND+FGSM transfers less than FGSM",
        lambda r: [
            ((target, source, "fgsm"), (target, source, "rand_fgsm"))
            for target in (*r.undefended, *r.baselines, *r.ensembles)
            for source in r.undefended
            if target != source
        ],
    ),
    Finding(
        "4",
        "training on RAND+FGSM does not lower the error of RAND+FGSM or FGSM",
        lambda r: [
            claimed
            for model in r.random
            for beside in r.baselines
            if r.after(beside) == r.after(model)
            for claimed in (
                *(((model, model, attack), (beside, beside, attack)) for attack in ("fgsm", "rand_fgsm")),
                *(((model, r.holdout, attack), (beside, r.holdout, attack)) for attack in ("fgsm", "rand_fgsm")),
            )
        ],
    ),
    *(
        Finding(
            "5.3",
            f"the ensemble errs less on {attack_title(attack)} from the holdout",
            _higher_for_baselines(attack),
        )
        for attack in TRANSFERRED
    ),
    Finding(
        "5.3",
        "the ensemble errs more on its own FGSM",
        lambda r: [((e, e, "fgsm"), (b, b, "fgsm")) for b, e in r.pairs],
    ),
    Finding(
        "5.3",
        "more epochs lower the ensemble's error on its own FGSM",
        lambda r: [((e, e, "fgsm"), (later, later, "fgsm")) for e, later in pairwise(r.ensembles)],
    ),
    Finding(
        "5.3",
        "the ensemble errs no more in a black box than in a white box",
        lambda r: [((e, e, "fgsm"), (e, r.holdout, "fgsm")) for e in r.ensembles],
    ),
    Finding(
        "5.3",
        "the ensemble errs less on FGSM from other models that no training saw",
        lambda r: [((b, source, "fgsm"), (e, source, "fgsm")) for b, e in r.pairs for source in r.other_holdouts],
    ),
)


@dataclass(frozen=True)
class TextCell:
    """A cell of words."""

    text: str
    beside: str = ""
    note: str = ""
    bold: bool = False
    marked: bool = False
    heat: float | None = None

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """The words as the value."""
        return {"value": self.text}


def roles(params: Params, shown: Sequence[str], random: Sequence[str]) -> Roles | None:
    """Tell which of our models play which part; none without a baseline, or without an ensemble of architecture A."""
    baselines, ensembles = selection.standard(params, shown), selection.ensembles(params, shown)
    if not ensembles or not baselines or params.robust[ensembles[0]].architecture != "A":
        return None
    alike = [name for name in baselines if params.robust[name].architecture == "A"]
    holdout = params.evaluation.holdout
    return Roles(
        undefended=[name for name in shown if name in params.static],
        holdout=holdout,
        other_holdouts=[name for name in selection.held_out(params) if name != holdout],
        baselines=_every_epoch(alike[0], shown) if alike else [],
        ensembles=_every_epoch(ensembles[0], shown),
        random=random,
        other_baselines=[name for name in baselines if name not in alike],
        epochs={name: model.epochs for name, model in params.robust.items()},
    )


def findings_table(matrix: ErrorMatrix, played: Roles) -> Table:
    """Return every sentence that was measured, with the mean error rates in percent and the verdict.

    A verdict is about ways of training, by paired differences over seeds and images, corrected for all differences of
    the table (docs/statistics.md): one seed, or static models that no seed changes, show nothing.
    """
    measured = [(finding, _measured(matrix, finding.claimed(played))) for finding in FINDINGS]
    corrected = iter(correct_for_number([pair.measured for _, pairs in measured for pair in pairs]))
    rows = [
        (
            f"{finding.says} ({finding.section})",
            [
                TextCell("; ".join(pair.figures for pair in pairs)),
                TextCell(_verdict([ClaimedDifference("higher", next(corrected)) for _ in pairs])),
            ],
        )
        for finding, pairs in measured
        if pairs
    ]
    return Table("findings", "What the paper says about MNIST", "the paper", ["measured, %", "verdict"], rows)


@dataclass(frozen=True)
class _Pair:
    """Two error rates in words, and the first less the second, which should be above 0."""

    figures: str
    measured: PairedDifference


def _every_epoch(name: str, shown: Sequence[str]) -> list[str]:
    """Return a robust model's snapshots, by epoch, and then the model itself."""
    snapshots = [other for other in shown if other.startswith(f"{name}@") and other != f"{name}@{BEST}"]
    return [*sorted(snapshots, key=lambda other: int(_epochs(other))), name]


def _measured(matrix: ErrorMatrix, claimed: Sequence[Claimed]) -> list[_Pair]:
    pairs = []
    for first, second in claimed:
        higher, lower = matrix.errors(*first), matrix.errors(*second)
        steady = matrix.seeds.same(*first[:2], *second[:2])
        if both := shared_seeds([higher, lower]):
            of = of_one_seed([higher, lower]) if steady else [higher.of(both), lower.of(both)]
            named = [f"{_called(rate)} {100 * its.mean:.1f}" for rate, its in zip((first, second), of, strict=True)]
            pairs.append(_Pair(" against ".join(named), difference(*of)))
    return pairs


def _called(rate: Rate) -> str:
    target, source, attack = rate
    if attack == CLEAN:
        return f"{target}, clean"
    return f"{attack_title(attack)} {'' if source == target else f'{source} → '}{target}"


def _verdict(claimed: Sequence[ClaimedDifference]) -> str:
    """Return the verdict on all differences: it holds if every one does, and is reversed if at least one is."""
    each = [difference.verdict for difference in claimed]
    if "reversed" in each:
        return "reversed" if len(each) == 1 else f"reversed in {each.count('reversed')} of {len(each)}"
    if all(difference.measured.finding == ONE_SEED for difference in claimed):
        return "not shown: one seed"
    shown = each.count("holds")
    return "holds" if shown == len(each) else f"not shown: holds in {shown} of {len(each)}"
