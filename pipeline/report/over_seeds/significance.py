"""Paired tests of whether one robust model is better than another, on the same examples, corrected for their number."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.evaluation.paired_defences import PairedDifference, correct_for_number
from gradshard.pipeline.evaluation.statistics import holm, mcnemar
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds import seed_errors, verdicts
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors, on_shared_images
from gradshard.pipeline.types import CLEAN


@dataclass(frozen=True)
class Comparison:
    """Two trained models on the same images: how many only the one or the other got wrong, and the corrected p-value.

    It is over test images alone, and says nothing about the ways in which the two models were trained.
    """

    first: str
    second: str
    attack: str
    only_first: int
    only_second: int
    p: float

    @property
    def verdict(self) -> str:
        """Name the model that errs less, if that is unlikely to be chance."""
        if self.p >= 0.05:
            return "no difference shown"
        return f"{self.second if self.only_first > self.only_second else self.first} errs less"

    @property
    def p_text(self) -> str:
        """The p-value, to two figures."""
        return verdicts.p_text(self.p)


@dataclass(frozen=True)
class TrainingComparison:
    """Two ways of training on the same seeds and images; ``measured`` is corrected for the number of comparisons.

    ``steady`` says that no seed changes either, so that two models are compared, over images alone.
    """

    first: str
    second: str
    attack: str
    measured: PairedDifference
    steady: bool = False

    @property
    def points(self) -> str:
        """The first's error rate less the second's, in points."""
        return f"{100 * self.measured.difference:+.1f}"

    @property
    def interval(self) -> str:
        """Its 95 % interval, for this comparison alone; a dash for one seed."""
        if self.measured.interval is None:
            return "–"
        low, high = (100 * end for end in self.measured.interval)
        return f"{low:+.1f} to {high:+.1f}"

    @property
    def over(self) -> str:
        """Tell how many seeds and images the comparison is over."""
        seeds = "" if self.steady else f"{self.measured.seeds} seed{'s' if self.measured.seeds > 1 else ''}, "
        return f"{seeds}{self.measured.images} images"

    @property
    def p_text(self) -> str:
        """The corrected p-value, to two figures; a dash for one seed."""
        return "–" if self.measured.corrected_p is None else verdicts.p_text(self.measured.corrected_p)

    @property
    def verdict(self) -> str:
        """Name the one that errs less, if that is unlikely to be chance."""
        finding = self.measured.finding
        better = {"lower": self.first, "higher": self.second}.get(finding)
        return f"{better} errs less" if better else finding


def compare_models(groups: Mapping[str, Sequence[str]], holdout: str, matrix: ErrorMatrix) -> list[Comparison]:
    """Compare every two models of a group in each column of the paper's table 4: McNemar's test, Holm's correction.

    Args:
        groups: comparable models, of one seed.
        holdout: the model whose examples are transferred.
        matrix: the results; what was not measured image by image is left out.
    """
    found = [
        (pair, mcnemar(*(~wrong[0] for wrong in on_shared_images([first.images, second.images]))))
        for pair, first, second in _pairs(groups, holdout, matrix)
        if first.images and second.images
    ]
    corrected = holm([test.p for _, test in found])
    return [
        Comparison(*pair, test.only_first, test.only_second, p)
        for (pair, test), p in zip(found, corrected, strict=True)
    ]


def compare_training(
    groups: Mapping[str, Sequence[str]], holdout: str, matrix: ErrorMatrix
) -> list[TrainingComparison]:
    """Compare every two models of a group in the same columns over seeds: paired differences, Holm's correction.

    Both seeds and images vary, so this compares two ways of training. Arguments: as for `compare_models`.
    """
    found = [
        (pair, seed_errors.difference(first, second))
        for pair, first, second in _pairs(groups, holdout, matrix)
        if first.images and second.images and seed_errors.shared_seeds([first, second])
    ]
    corrected = correct_for_number([measured for _, measured in found])
    return [
        TrainingComparison(*pair, measured, steady=matrix.seeds.same(*pair[:2]))
        for (pair, _), measured in zip(found, corrected, strict=True)
    ]


def _pairs(
    groups: Mapping[str, Sequence[str]], holdout: str, matrix: ErrorMatrix
) -> Iterator[tuple[tuple[str, str, str], SeedErrors, SeedErrors]]:
    """Yield two models and the attack in words, and the errors of both."""
    transferred = [(holdout, attack) for attack in ("fgsm", "ifgsm", "rand_fgsm")]
    for models in groups.values():
        for first, second in combinations(models, 2):
            for source, attack in (("", CLEAN), (None, "fgsm"), *transferred):
                title = attack_title(attack) + (f" from {source}" if source else "")
                one, other = (matrix.errors(m, m if source is None else source, attack) for m in (first, second))
                yield (first, second, title), one, other
