"""Checks of claims: over several seeds by paired differences, for one seed by intervals over its test images alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from gradshard.pipeline.evaluation.paired_defences import correct_for_number
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report.over_seeds.seed_errors import difference
from gradshard.pipeline.report.over_seeds.verdicts import ClaimedDifference, Verdict, verdict
from gradshard.pipeline.report.paper.claims import Claim, Pair


@dataclass(frozen=True)
class CheckedClaim:
    """A claim, its measured figures in words, the verdict, and the verdict in the words of the page (``said``)."""

    claim: str
    figures: str
    verdict: Verdict
    said: str


def check_over_seeds(claims: Sequence[Claim]) -> list[CheckedClaim]:
    """Check claims on ways of training, over seeds and images; p-values are corrected for all their differences."""
    pairs = [pair for claim in claims for pair in claim.pairs]
    measured = correct_for_number([difference(pair.lower, pair.higher) for pair in pairs])
    claimed = iter(
        [ClaimedDifference("lower", found, pair.steady) for pair, found in zip(pairs, measured, strict=True)]
    )
    return [_over_seeds(claim, claimed) for claim in claims]


def check_over_images(claims: Sequence[Claim]) -> list[CheckedClaim]:
    """Check claims on the trained models of one seed: 95 % intervals over the test images tell what is chance."""
    return [_over_images(claim) for claim in claims]


def _over_seeds(claim: Claim, claimed: Iterator[ClaimedDifference]) -> CheckedClaim:
    of = list(islice(claimed, len(claim.pairs)))
    figures = [f"{_both(pair)}: {found.figures}" for pair, found in zip(claim.pairs, of, strict=True)]
    found = verdict(of)
    return CheckedClaim(claim.text, "; ".join(figures), found, found)


def _over_images(claim: Claim) -> CheckedClaim:
    figures = "; ".join(_both(pair) for pair in claim.pairs)
    rates = [(_only(pair.higher.rates.values()), _only(pair.lower.rates.values())) for pair in claim.pairs]
    if any(higher.interval[1] < lower.interval[0] for higher, lower in rates):
        return CheckedClaim(claim.text, figures, "reversed", "does not hold")
    if any(lower.rate >= higher.rate for higher, lower in rates):
        return CheckedClaim(claim.text, figures, "not shown", "not shown: intervals overlap")
    clear = all(lower.interval[1] < higher.interval[0] for higher, lower in rates)
    return CheckedClaim(claim.text, figures, "holds", "holds" if clear else "holds, but intervals overlap")


def _only(rates: Iterable[ErrorRate]) -> ErrorRate:
    (rate,) = rates
    return rate


def _both(pair: Pair) -> str:
    return f"{pair.label} {100 * pair.lower.mean:.1f} % against {100 * pair.higher.mean:.1f} %".strip()
