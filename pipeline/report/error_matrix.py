"""The error matrix, looked up by target, source and attack."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report.over_seeds import seed_errors
from gradshard.pipeline.report.over_seeds.seed_errors import ImageErrors, SeedErrors
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell
from gradshard.pipeline.report.paper import paper_figures
from gradshard.pipeline.report.table import RateCell
from gradshard.pipeline.types import CLEAN, WORST_CASE, Gradient
from gradshard.storage.errors import GradshardError

# Of one seed, by target, source, attack, gradient and top k: the numbers of images, int64 (n,), ascending, and which of
# them were classified right, bool (n,).
Examples = Mapping[tuple[str, str, str, str, int], tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]


@dataclass(frozen=True)
class ErrorMatrix:
    """The error matrix, looked up by target, source and attack; of one gradient, one top k and all seeds.

    ``called`` maps our models to the paper's names, so that its figures can stand beside ours. ``examples`` are by
    seed, for seeds whose images are known.
    """

    rows: Sequence[Mapping[str, Any]]
    gradient: Gradient
    seeds: Seeds
    called: Mapping[str, str] = field(default_factory=dict)
    top: int = 1
    examples: Mapping[int, Examples] = field(default_factory=dict)
    _index: dict[tuple[str, str, str], dict[int, ErrorRate]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if row["gradient"] in ("", self.gradient) and row["top"] == self.top:
                found = self._index.setdefault((row["target"], row["source"], row["attack"]), {})
                found[row["seed"]] = ErrorRate(row["errors"], row["n"])

    def rates(self, target: str, source: str, attack: str) -> Mapping[int, ErrorRate]:
        """Return the error rate by each seed that it was measured with; the source of clean images is empty."""
        return self._index.get((target, source, attack), {})

    def errors(self, target: str, source: str, attack: str) -> SeedErrors:
        """Return the error rate by seed, and the images classified wrong if they are known for every seed.

        Raises:
            GradshardError: the images do not belong to the error rate, or differ between seeds.
        """
        rates = self.rates(target, source, attack)
        if not rates or any(seed not in self.examples for seed in rates):
            return SeedErrors(rates)
        key = (target, source, attack, "" if attack == CLEAN else self.gradient, self.top)
        found = [self._images(seed, key, rate) for seed, rate in rates.items()]
        numbers = found[0].numbers
        if not all(np.array_equal(numbers, its.numbers) for its in found):
            raise GradshardError(
                f"seeds {', '.join(map(str, rates))} were evaluated on different test images: run `gradshard evaluate` "
                "again with each"
            )
        return SeedErrors(rates, ImageErrors(numbers, np.concatenate([its.wrong for its in found])))

    def worst_case(self, target: str, cells: Iterable[tuple[str, str]]) -> SeedErrors:
        """Return a target's errors on images that it gets wrong clean or under any of these attacks, (source, attack).

        It has no rates where the examples of a cell are not known.
        """
        return seed_errors.worst_case([self.errors(target, *cell) for cell in (("", CLEAN), *cells)])

    def cell(self, target: str, source: str, attack: str, *, marked: bool = False) -> RateCell | TrainingCell:
        """Return the error rate as a table shows it, with the paper's figure."""
        paper = self.papers(target, source, attack)
        return self.seeds.cell(self.errors(target, source, attack), target, source, marked=marked, paper=paper)

    def _images(self, seed: int, key: tuple[str, str, str, str, int], rate: ErrorRate) -> ImageErrors:
        numbers, correct = self.examples[seed].get(key, ((), ()))
        wrong = ~np.asarray(correct, dtype=np.bool_)
        if (len(wrong), int(wrong.sum())) != (rate.n, rate.errors):
            raise GradshardError(
                f"examples.parquet of seed {seed} does not belong to its matrix.parquet ({key[2]} on {key[0]}: "
                f"{int(wrong.sum())} of {len(wrong)} images wrong, not {rate.errors} of {rate.n}): "
                f"run `gradshard evaluate --seed {seed}` again"
            )
        return ImageErrors(np.asarray(numbers, dtype=np.int64), wrong[None])

    def papers(self, target: str, source: str, attack: str) -> float | None:
        """Return the paper's figure for the same error rate, in percent, if it has one."""
        return paper_figures.error(self.called.get(target, ""), self.called.get(source, ""), attack, self.top)

    @property
    def targets(self) -> list[str]:
        """All targets, in the order of the matrix."""
        return list(dict.fromkeys(target for target, _, _ in self._index))

    def attacks(self, target: str) -> list[tuple[str, str]]:
        """Return the source and name of every single attack on a target, in the order of the matrix."""
        return [
            (source, attack) for of, source, attack in self._index if of == target and attack not in (CLEAN, WORST_CASE)
        ]

    def sources(self, attack: str) -> list[str]:
        """Return the models that crafted the attack, in the order of the matrix."""
        return list(dict.fromkeys(source for _, source, name in self._index if name == attack))
