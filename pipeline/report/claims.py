"""The paper's findings on MNIST, checked on what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.tables import TRANSFERRED


@dataclass(frozen=True)
class Pair:
    """Of two error rates the first should be the higher: both by seed, of those with which both were measured."""

    label: str
    higher: Sequence[ErrorRate]
    lower: Sequence[ErrorRate]

    @property
    def reversed(self) -> list[bool]:
        """Tell for each seed whether the first is not the higher."""
        return [lower.rate >= higher.rate for higher, lower in zip(self.higher, self.lower, strict=True)]

    @property
    def apart(self) -> list[bool]:
        """Tell for each seed whether the first is the higher and the 95 % intervals do not overlap."""
        pairs = zip(self.higher, self.lower, strict=True)
        return [lower.interval[1] < higher.interval[0] for higher, lower in pairs]

    @property
    def refuted(self) -> bool:
        """Tell whether for every seed the first is the lower and the 95 % intervals do not overlap."""
        return all(h.interval[1] < low.interval[0] for h, low in zip(self.higher, self.lower, strict=True))

    @property
    def figures(self) -> str:
        """Both in words, the mean over the seeds where there are several."""
        return f"{self.label} {_percent(self.lower)} against {_percent(self.higher)}".strip()


@dataclass(frozen=True)
class ClaimCheck:
    """A finding of the paper, checked on these results: what it says, and the pairs of error rates that it is about.

    ``holds`` if for every seed every comparison comes out as the paper has it, ``clear`` if of none the 95 % intervals
    overlap, and ``refuted`` if for every seed one comes out the other way round and its intervals do not overlap.
    """

    claim: str
    pairs: Sequence[Pair]

    @property
    def figures(self) -> str:
        """All that was measured, in words."""
        return "; ".join(pair.figures for pair in self.pairs)

    @property
    def holds(self) -> bool:
        """Tell whether no comparison is reversed."""
        return not any(any(pair.reversed) for pair in self.pairs)

    @property
    def clear(self) -> bool:
        """Tell whether no intervals overlap."""
        return all(all(pair.apart) for pair in self.pairs)

    @property
    def refuted(self) -> bool:
        """Tell whether a comparison comes out clearly the other way round."""
        return any(pair.refuted for pair in self.pairs)

    @property
    def verdict(self) -> str:
        """In words."""
        several = max(len(pair.higher) for pair in self.pairs)
        if self.refuted:
            return "does not hold"
        if not self.holds:
            return "not shown: reversed with some seed" if several > 1 else "not shown: intervals overlap"
        holds = f"holds with each of {several} seeds" if several > 1 else "holds"
        return holds if self.clear else f"{holds}, but intervals overlap"


def check_claims(
    matrix: ErrorMatrix,
    probes: Mapping[str, Mapping[int, GradientProbe]],
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
        probes: each model's own gradient, probed, by seed.
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
            [_pair("", matrix.rates(baseline, holdout, "fgsm"), matrix.rates(baseline, baseline, "fgsm"))],
        ),
        (
            "RAND+FGSM beats FGSM on all models, white box (section 4)",
            [
                _pair(model, matrix.rates(model, model, "rand_fgsm"), matrix.rates(model, model, "fgsm"))
                for model in (*undefended, baseline)
            ],
        ),
        (
            "FGSM with ε − α is weaker than with ε on all models (section 4)",
            [_pair(model, _rates(own, "fgsm"), _rates(own, "fgsm_less_alpha")) for model, own in probes.items()],
        ),
        (
            f"{ensemble} errs less than {baseline} on examples transferred from {holdout} (section 5.3)",
            [
                _pair(
                    attack_title(attack),
                    matrix.rates(baseline, holdout, attack),
                    matrix.rates(ensemble, holdout, attack),
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
                _pair(source, matrix.rates(baseline, source, "fgsm"), matrix.rates(ensemble, source, "fgsm"))
                for source in others
            ],
        ),
    ]
    checked = [ClaimCheck(claim, [pair for pair in pairs if pair.higher]) for claim, pairs in claims]
    return [finding for finding in checked if finding.pairs]


def _smaller_epsilons(
    probes: Mapping[str, Mapping[int, GradientProbe]], baseline: str, ensemble: str, epsilon: float
) -> list[Pair]:
    if not {baseline, ensemble} <= set(probes):
        return []
    one, other = probes[baseline], probes[ensemble]
    smaller = sorted({e for probe in other.values() for e in probe.transferred if 0 < e < epsilon})
    return [_pair(f"ε = {e:g}", _transferred(one, e), _transferred(other, e)) for e in smaller]


def _pair(label: str, higher: Mapping[int, ErrorRate], lower: Mapping[int, ErrorRate]) -> Pair:
    """Of the seeds with which both were measured; nothing if there are none."""
    both = [seed for seed in higher if seed in lower]
    return Pair(label, [higher[seed] for seed in both], [lower[seed] for seed in both])


def _rates(probes: Mapping[int, GradientProbe], attack: str) -> dict[int, ErrorRate]:
    return {seed: probe.rate(attack) for seed, probe in probes.items()}


def _transferred(probes: Mapping[int, GradientProbe], epsilon: float) -> dict[int, ErrorRate]:
    return {seed: ErrorRate(probe.transferred[epsilon], probe.n) for seed, probe in probes.items()}


def _percent(rates: Sequence[ErrorRate]) -> str:
    return f"{100 * fmean(rate.rate for rate in rates):.1f} %"
