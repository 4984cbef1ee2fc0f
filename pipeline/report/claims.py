"""The paper's findings on MNIST, checked on what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.tables import TRANSFERRED


@dataclass(frozen=True)
class ClaimCheck:
    """A finding of the paper, checked on these results: what it says, the figures, whether it holds, and clearly.

    ``holds`` if every comparison comes out as the paper has it, ``clear`` if of none the 95 % intervals overlap, and
    ``refuted`` if one comes out the other way round and its intervals do not overlap.
    """

    claim: str
    figures: str
    holds: bool
    clear: bool
    refuted: bool

    @property
    def verdict(self) -> str:
        """In words."""
        if self.refuted:
            return "does not hold"
        if not self.holds:
            return "not shown: intervals overlap"
        return "holds" if self.clear else "holds, but intervals overlap"


@dataclass(frozen=True)
class _Pair:
    """Of two error rates the first should be the higher."""

    label: str
    higher: ErrorRate | None
    lower: ErrorRate | None


def check_claims(
    matrix: ErrorMatrix,
    probes: Mapping[str, GradientProbe],
    *,
    undefended: Sequence[str],
    baseline: str,
    ensemble: str,
    holdout: str,
    others: Sequence[str],
    epsilon: float,
) -> list[ClaimCheck]:
    """Check what the paper finds on MNIST and what survives a change of data, seeds and machine, where it was measured.

    Args:
        matrix: the results.
        probes: each model's own gradient, probed.
        undefended: static models, attacked by themselves too.
        baseline: the model of standard adversarial training.
        ensemble: the model of ensemble adversarial training.
        holdout: the source that neither has seen.
        others: more such sources.
        epsilon: that of the attacks.
    """
    claims = [
        (
            f"{baseline} errs more on FGSM transferred from {holdout} than on its own (section 3.2)",
            [_Pair("", matrix.rate(baseline, holdout, "fgsm"), matrix.rate(baseline, baseline, "fgsm"))],
        ),
        (
            "RAND+FGSM beats FGSM on all models, white box (section 4)",
            [
                _Pair(model, matrix.rate(model, model, "rand_fgsm"), matrix.rate(model, model, "fgsm"))
                for model in (*undefended, baseline)
            ],
        ),
        (
            "FGSM with ε − α is weaker than with ε on all models (section 4)",
            [_Pair(model, probe.rate("fgsm"), probe.rate("fgsm_less_alpha")) for model, probe in probes.items()],
        ),
        (
            f"{ensemble} errs less than {baseline} on examples transferred from {holdout} (section 5.3)",
            [
                _Pair(
                    attack_title(attack),
                    matrix.rate(baseline, holdout, attack),
                    matrix.rate(ensemble, holdout, attack),
                )
                for attack in TRANSFERRED
            ],
        ),
        (
            f"So it does if ε is smaller, with FGSM from {holdout} (section 5.3)",
            _smaller_epsilons(probes, baseline, ensemble, epsilon),
        ),
        (
            "So it does if another model is held out, with its FGSM (section 5.3)",
            [
                _Pair(source, matrix.rate(baseline, source, "fgsm"), matrix.rate(ensemble, source, "fgsm"))
                for source in others
            ],
        ),
    ]
    checked = [_check(claim, pairs) for claim, pairs in claims]
    return [finding for finding in checked if finding is not None]


def _smaller_epsilons(probes: Mapping[str, GradientProbe], baseline: str, ensemble: str, epsilon: float) -> list[_Pair]:
    if not {baseline, ensemble} <= set(probes):
        return []
    one, other = probes[baseline], probes[ensemble]
    return [
        _Pair(f"ε = {smaller:g}", ErrorRate(one.transferred[smaller], one.n), ErrorRate(errors, other.n))
        for smaller, errors in sorted(other.transferred.items())
        if 0 < smaller < epsilon
    ]


def _check(claim: str, pairs: Sequence[_Pair]) -> ClaimCheck | None:
    """None if nothing that the claim is about was measured."""
    known = [(pair.label, pair.higher, pair.lower) for pair in pairs if pair.higher and pair.lower]
    if not known:
        return None
    figures = [f"{label} {_percent(lower)} against {_percent(higher)}".strip() for label, higher, lower in known]
    return ClaimCheck(
        claim,
        "; ".join(figures),
        holds=all(lower.rate < higher.rate for _, higher, lower in known),
        clear=all(lower.interval[1] < higher.interval[0] for _, higher, lower in known),
        refuted=any(higher.interval[1] < lower.interval[0] for _, higher, lower in known),
    )


def _percent(rate: ErrorRate) -> str:
    return f"{100 * rate.rate:.1f} %"
