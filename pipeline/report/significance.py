"""Is one robust model better than another? Paired tests on the same examples, corrected for their number."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.evaluation.statistics import PairedTest, holm, mcnemar
from gradshard.pipeline.types import CLEAN

Correct = Callable[[int, str, str, str], npt.NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same examples: how many only the one or the other got wrong, and the corrected p-value.

    Of several seeds the counts are sums, and the p-value is the largest of all; it is 1 if not the same model errs more
    in each, so that a difference is one for every seed.
    """

    first: str
    second: str
    attack: str
    only_first: int
    only_second: int
    p: float

    @property
    def verdict(self) -> str:
        """Name the model that errs less, if that is no likely chance."""
        if self.p >= 0.05:
            return "no difference shown"
        return f"{self.second if self.only_first > self.only_second else self.first} errs less"

    @property
    def p_text(self) -> str:
        """The p-value, to two figures."""
        return "< 1e-12" if self.p < 1e-12 else f"{self.p:.2g}"


def compare_models(
    groups: Mapping[str, Sequence[str]], holdout: str, correct: Correct, seeds: Sequence[int]
) -> list[Comparison]:
    """Every two models of a group in every column of the paper's table 4, by McNemar's test with Holm's correction.

    Args:
        groups: models after the same number of epochs.
        holdout: whose examples are transferred.
        correct: which examples are classified right, bool (n,), by seed, target, source and attack; None if that was
            not measured.
        seeds: with which the models were trained; two are compared seed by seed.
    """
    transferred = [(holdout, attack) for attack in ("fgsm", "ifgsm", "rand_fgsm")]
    found = []
    for models in groups.values():
        for first, second in combinations(models, 2):
            for source, attack in (("", CLEAN), (None, "fgsm"), *transferred):
                tests = []
                for seed in seeds:
                    right = [
                        correct(seed, model, model if source is None else source, attack) for model in (first, second)
                    ]
                    if right[0] is not None and right[1] is not None:
                        tests.append(mcnemar(right[0], right[1]))
                if tests:
                    title = attack_title(attack) + (f" from {source}" if source else "")
                    found.append((first, second, title, tests))
    corrected = holm([_p(tests) for *_, tests in found])
    return [
        Comparison(
            first, second, title, sum(test.only_first for test in tests), sum(test.only_second for test in tests), p
        )
        for (first, second, title, tests), p in zip(found, corrected, strict=True)
    ]


def _p(tests: Sequence[PairedTest]) -> float:
    """The p-value of a difference for every seed: the largest, for all of them must be one (Berger 1982)."""
    signs = {test.only_first > test.only_second for test in tests}
    return max(test.p for test in tests) if len(signs) == 1 else 1.0
