"""Errors of one model under one attack, by seed: how many, on which images, and how two such errors differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from statistics import fmean

import numpy as np
import numpy.typing as npt

from gradshard.pipeline.evaluation.paired_defences import (
    PairedDifference,
    paired_difference,
    paired_difference_of_rates,
    tied_for_best_over_seeds,
)
from gradshard.pipeline.evaluation.statistics import ErrorRate


@dataclass(frozen=True)
class ImageErrors:
    """Images that were classified wrong.

    ``numbers`` are those of the images in the test set, int64 (images,), ascending; ``wrong`` is bool (seeds, images).
    """

    numbers: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SeedErrors:
    """Error rates by seed, and the images that they are of, row by row in the same order; none if not known."""

    rates: Mapping[int, ErrorRate]
    images: ImageErrors | None = field(default=None, compare=False)

    @property
    def mean(self) -> float:
        """The mean error rate over the seeds."""
        return fmean(rate.rate for rate in self.rates.values())

    def of(self, seeds: Sequence[int]) -> "SeedErrors":
        """Return the errors of some of the seeds, in the given order."""
        rates = {seed: self.rates[seed] for seed in seeds}
        if self.images is None:
            return SeedErrors(rates)
        places = [list(self.rates).index(seed) for seed in seeds]
        return SeedErrors(rates, ImageErrors(self.images.numbers, self.images.wrong[places]))


def shared_seeds(errors: Sequence[SeedErrors]) -> list[int]:
    """Return the seeds that all errors were measured with."""
    return [seed for seed in errors[0].rates if all(seed in its.rates for its in errors)]


def difference(first: SeedErrors, second: SeedErrors) -> PairedDifference:
    """Compare two error rates over the seeds and images that both were measured with.

    If the images are not known, the rates alone are compared, which detects only larger differences.
    """
    seeds = shared_seeds([first, second])
    one, other = first.of(seeds), second.of(seeds)
    if one.images is None or other.images is None:
        rates = [[rate.rate for rate in its.rates.values()] for its in (one, other)]
        return paired_difference_of_rates(*rates, images=min(r.n for its in (one, other) for r in its.rates.values()))
    return paired_difference(*on_shared_images([one.images, other.images]))


def of_one_seed(errors: Sequence[SeedErrors]) -> list[SeedErrors]:
    """Return errors with the first seed that all have, of models that no seed changes: more seeds tell no more."""
    return [its.of(shared_seeds(errors)[:1]) for its in errors]


def tied_for_best(errors: Sequence[SeedErrors]) -> list[bool]:
    """Tell which errors are not shown to be higher than the lowest, over the seeds and images that all have in common.

    None is tied where that cannot be told: for a single one, without a common seed, or if some images are not known.
    """
    seeds = shared_seeds(errors) if len(errors) > 1 else []
    images = [found for its in errors if (found := its.of(seeds).images) is not None] if seeds else []
    if len(images) < len(errors) or not images:
        return [False] * len(errors)
    return tied_for_best_over_seeds(on_shared_images(images))


def worst_case(errors: Sequence[SeedErrors]) -> SeedErrors:
    """Return the errors on images that any of them is wrong on, over the seeds and images that all have in common.

    There are none if some errors are not known image by image.
    """
    seeds = shared_seeds(errors)
    images = [found for its in errors if (found := its.of(seeds).images) is not None] if seeds else []
    if len(images) < len(errors) or not images:
        return SeedErrors({})
    wrong = np.logical_or.reduce(on_shared_images(images))
    numbers = reduce(np.intersect1d, (its.numbers for its in images))
    rates = {seed: ErrorRate(int(row.sum()), len(row)) for seed, row in zip(seeds, wrong, strict=True)}
    return SeedErrors(rates, ImageErrors(numbers, wrong))


def on_shared_images(each: Sequence[ImageErrors]) -> list[npt.NDArray[np.bool_]]:
    """Return for each of several errors which of the images that all have were wrong, bool (seeds, images)."""
    shared = reduce(np.intersect1d, (its.numbers for its in each))
    return [its.wrong[:, np.searchsorted(its.numbers, shared)] for its in each]
