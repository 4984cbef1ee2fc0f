"""Claims of the paper on MNIST, as pairs of error rates of which one should be the higher."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report import probing, selection
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors, shared_seeds
from gradshard.pipeline.report.tables import TRANSFERRED


@dataclass(frozen=True)
class Pair:
    """Two error rates, of the same seeds, at least one; the claim is that the first is the higher.

    ``steady`` says that no seed changes the models that take part.
    """

    label: str
    higher: SeedErrors
    lower: SeedErrors
    steady: bool = False


@dataclass(frozen=True)
class Claim:
    """A finding of the paper in words, and the pairs of error rates that it is about."""

    text: str
    pairs: Sequence[Pair]


def measured_claims(params: Params, matrix: ErrorMatrix, probes: probing.Probes, shown: Sequence[str]) -> list[Claim]:
    """Return the paper's claims on the shown targets, as far as they were measured; none without both defences."""
    baseline = next(iter(selection.standard(params, shown)), None)
    ensemble = next(iter(selection.ensembles(params, shown)), None)
    if baseline is None or ensemble is None:
        return []
    holdout = params.evaluation.holdout
    return make_claims(
        matrix,
        {name: of for name, of in probes.items() if name in shown},
        undefended=[name for name in shown if name in params.static],
        baseline=baseline,
        ensemble=ensemble,
        holdout=holdout,
        others=[name for name in selection.held_out(params) if name != holdout],
        epsilon=params.attack.epsilon,
    )


def make_claims(
    matrix: ErrorMatrix,
    probes: probing.Probes,
    *,
    undefended: Sequence[str],
    baseline: str,
    ensemble: str,
    holdout: str,
    others: Sequence[str],
    epsilon: float,
) -> list[Claim]:
    """Return the paper's findings on MNIST that survive a change of data and machine, as far as they were measured.

    Args:
        matrix: the results.
        probes: measurements of each model's own gradient, by seed.
        undefended: static models, attacked by themselves too.
        baseline: the model of standard adversarial training.
        ensemble: the model of ensemble adversarial training.
        holdout: the source that neither has seen.
        others: further sources that neither has seen.
        epsilon: that of the attacks.
    """

    def pair(label: str, higher: tuple[str, str, str], lower: tuple[str, str, str]) -> Pair | None:
        models = (*higher[:2], *lower[:2])
        return _pair(label, matrix.errors(*higher), matrix.errors(*lower), steady=matrix.seeds.same(*models))

    claims = [
        (
            f"{baseline} errs more on FGSM transferred from {holdout} than on its own (section 3.2)",
            [pair("", (baseline, holdout, "fgsm"), (baseline, baseline, "fgsm"))],
        ),
        (
            "RAND+FGSM beats FGSM on all models, white box (section 4)",
            [pair(model, (model, model, "rand_fgsm"), (model, model, "fgsm")) for model in (*undefended, baseline)],
        ),
        (
            "FGSM with ε − α is weaker than with ε on all models (section 4)",
            [
                _pair(
                    model,
                    probing.under(own, "fgsm"),
                    probing.under(own, "fgsm_less_alpha"),
                    steady=matrix.seeds.same(model),
                )
                for model, own in probes.items()
            ],
        ),
        (
            f"{ensemble} errs less than {baseline} on examples transferred from {holdout} (section 5.3)",
            [
                pair(attack_title(attack), (baseline, holdout, attack), (ensemble, holdout, attack))
                for attack in TRANSFERRED
            ],
        ),
        (
            f"So it does if ε is smaller, with FGSM from {holdout} (section 5.3)",
            _smaller_epsilons(probes, baseline, ensemble, epsilon),
        ),
        (
            "So it does if another model is held out, with its FGSM (section 5.3)",
            [pair(source, (baseline, source, "fgsm"), (ensemble, source, "fgsm")) for source in others],
        ),
    ]
    known = [Claim(text, [pair for pair in pairs if pair is not None]) for text, pairs in claims]
    return [claim for claim in known if claim.pairs]


def _smaller_epsilons(probes: probing.Probes, baseline: str, ensemble: str, epsilon: float) -> list[Pair | None]:
    if not {baseline, ensemble} <= set(probes):
        return []
    one, other = probes[baseline], probes[ensemble]
    smaller = sorted({e for probe in other.values() for e in probe.transferred if 0 < e < epsilon})
    return [_pair(f"ε = {e:g}", probing.transferred(one, e), probing.transferred(other, e)) for e in smaller]


def _pair(label: str, higher: SeedErrors, lower: SeedErrors, *, steady: bool = False) -> Pair | None:
    """Return the pair over the seeds with which both were measured, if there are any."""
    seeds = shared_seeds([higher, lower])
    return Pair(label, higher.of(seeds), lower.of(seeds), steady) if seeds else None
