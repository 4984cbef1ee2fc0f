"""Intervals for a training procedure and comparisons of two, held against simulated experiments of known truth.

A defence has a mean error rate; every seed has a rate of its own around it, drawn from a beta distribution; an image is
classified wrong where its difficulty, the same for every seed, plus a tenth of chance is beyond the seed's threshold.
Nine tenths of the variance are the image's, as on MNIST, where the errors of two runs of the same training have a
tetrachoric correlation of 0.87 to 0.97: most images are always right or always wrong. An interval holds if the mean
error rate of all seeds on all images is in it. `python -m benchmarks.coverage` prints all of it as tables.

What it does not show: variance that no seed makes, of another training set or another machine; seeds whose rates are
not like a beta distribution, but for one case, in the tables.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import click
import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from benchmarks import intervals
from benchmarks.intervals import Errors, Interval
from benchmarks.ratios import Claim
from gradshard.pipeline.evaluation.seed_variance import Floats, crossed_mean

SEEDS = (3, 5, 10)
LEAST, MOST = 0.93, 0.97

Difficulty = np.ndarray[tuple[int, int, int], np.dtype[np.float32]]

_OF_IMAGE = 0.9
_CELLS_AT_ONCE = 2_000_000
_FALSE, _SHIFT = 0.05, 0.03


@dataclass(frozen=True)
class Procedure:
    """A mean error rate, the standard deviation of the seeds' rates, and how these are distributed."""

    rate: float
    deviation: float
    one_in_five: bool = False

    def rates(self, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
        """Draw an error rate for every seed."""
        if not self.deviation:
            return np.full(shape, self.rate)
        if self.one_in_five:
            bad = rng.random(shape) < 0.2
            return self.rate + self.deviation * np.where(bad, 2.0, -0.5)
        both = self.rate * (1 - self.rate) / self.deviation**2 - 1
        return rng.beta(self.rate * both, (1 - self.rate) * both, shape)

    def generator(self, seeds: int, images: int) -> np.random.Generator:
        """Return a generator of its own for every cell of a table."""
        rate, deviation = round(1000 * self.rate), round(1000 * self.deviation)
        return np.random.default_rng((seeds, images, rate, deviation, self.one_in_five))


# The deviation is less than the rate: more of it makes most seeds err never and few of them often.
ORDINARY = [Procedure(r, d) for r in (0.02, 0.1, 0.4) for d in (0.0, 0.01, 0.03, 0.09) if d < r]
EXTREME = [
    *(Procedure(0.02, d) for d in (0.03, 0.09)),
    *(Procedure(0.1, d, one_in_five=True) for d in (0.01, 0.03, 0.09)),
]


def errors(rates: Floats, difficulty: Difficulty, rng: np.random.Generator) -> Errors:
    """Draw errors (runs, seeds, images) at rates (runs, seeds) on images of standard normal difficulty."""
    chance = rng.standard_normal((*rates.shape, difficulty.shape[-1]), dtype=np.float32)
    # Rates of 0 and 1 have no finite threshold.
    threshold = -ndtri(np.clip(rates, 1e-12, 1 - 1e-12)).astype(np.float32)[..., None]
    wrong: Errors = (
        np.float32(np.sqrt(_OF_IMAGE)) * difficulty + np.float32(np.sqrt(1 - _OF_IMAGE)) * chance > threshold
    )
    return wrong


def _difficulty(runs: int, images: int, rng: np.random.Generator) -> Difficulty:
    return rng.standard_normal((runs, 1, images), dtype=np.float32)


def coverage(
    procedure: Procedure, seeds: int, images: int, runs: int, rng: np.random.Generator, methods: Sequence[str]
) -> dict[str, float]:
    """Return the share of runs in which the interval of each method holds the procedure's rate."""
    every: Mapping[str, Callable[[Errors], Interval]] = _methods(rng)
    held = dict.fromkeys(methods, 0)
    for count in _portions(runs, seeds * images):
        wrong = errors(procedure.rates((count, seeds), rng), _difficulty(count, images, rng), rng)
        for name in methods:
            low, high = every[name](wrong)
            held[name] += int(((low <= procedure.rate) & (procedure.rate <= high)).sum())
    return {name: count / runs for name, count in held.items()}


def _methods(rng: np.random.Generator) -> dict[str, Callable[[Errors], Interval]]:
    return {
        "gradshard": intervals.ours,
        "Satterthwaite": intervals.satterthwaite,
        "crossed bootstrap": functools.partial(intervals.bootstrap, rng=rng),
        "seeds alone": intervals.seeds_alone,
        "images of one seed": intervals.images_of_one_seed,
    }


OURS, BOOTSTRAP = "gradshard", "crossed bootstrap"
_QUICK_METHODS = (OURS, "Satterthwaite", "seeds alone", "images of one seed")


@dataclass(frozen=True)
class Told:
    """The shares of experiments that tell two defences apart: by McNemar's test of one seed each, and by ours."""

    mcnemar: float
    ours: float


def told_apart(
    first: Procedure, second: Procedure, seeds: int, images: int, runs: int, rng: np.random.Generator
) -> Told:
    """Return the share of runs in which two defences, on the same images, are called different at 5 %."""
    by_one, by_all = 0, 0
    for count in _portions(runs, 2 * seeds * images):
        common = _difficulty(count, images, rng)
        one, other = (_errors_of_one(p.rates((count, seeds), rng), common, rng) for p in (first, second))
        only_one = (one[:, 0] & ~other[:, 0]).sum(axis=1)
        discordant = only_one + (~one[:, 0] & other[:, 0]).sum(axis=1)
        by_one += int((_two_sided(only_one, discordant) < _FALSE).sum())
        found = crossed_mean(one.astype(np.int8) - other.astype(np.int8))
        by_all += int((np.abs(found.mean) > found.margin(_FALSE)).sum())
    return Told(by_one / runs, by_all / runs)


def _errors_of_one(rates: Floats, common: Difficulty, rng: np.random.Generator) -> Errors:
    """Draw errors of one defence, to which images are hard as to the other, but for a third of the variance."""
    own = _difficulty(len(common), common.shape[-1], rng)
    return errors(rates, np.float32(np.sqrt(2 / 3)) * common + np.float32(np.sqrt(1 / 3)) * own, rng)


def _two_sided(successes: np.ndarray[tuple[int], np.dtype[np.int64]], trials: Floats) -> Floats:
    """Test by McNemar's exact test, many at once."""
    p: Floats = np.minimum(1.0, 2 * binom.cdf(np.minimum(successes, trials - successes), trials, 0.5))
    return p


def _portions(runs: int, cells: int) -> Iterator[int]:
    """Runs in portions that fit into memory."""
    most = max(1, _CELLS_AT_ONCE // cells)
    for start in range(0, runs, most):
        yield min(most, runs - start)


def measure(*, quick: bool = False) -> list[Claim]:
    """Return the least and the largest coverage over ordinary procedures, and how often equal defences stay untold."""
    runs, procedures = (100, ORDINARY[4:6]) if quick else (4000, ORDINARY)
    claims = []
    for seeds in SEEDS:
        found = [_seeded(seeds, p, 1000, runs, _QUICK_METHODS) for p in procedures]
        shares = {name: [each[name] for each in found] for name in _QUICK_METHODS}
        claims += [
            _claim(f"least coverage of 95 % intervals, {seeds} seeds", shares[OURS], min, LEAST),
            _claim(f"largest coverage of 95 % intervals, {seeds} seeds", shares[OURS], max, MOST),
            *(_claim(f"least of those by {name}, {seeds} seeds", shares[name], min) for name in _QUICK_METHODS[1:]),
        ]
        equal = [1 - _told(seeds, p, 0.0, 1000, runs // 4).ours for p in procedures]
        claims.append(_claim(f"equal defences not told apart, {seeds} seeds", equal, min, LEAST))
    return claims


def _claim(
    name: str, shares: Sequence[float], of: Callable[[Sequence[float]], float], target: float | None = None
) -> Claim:
    return Claim(name, of(shares), target, "least" if of is min else "most", len(shares), min(shares), max(shares))


def _seeded(seeds: int, procedure: Procedure, images: int, runs: int, methods: Sequence[str]) -> dict[str, float]:
    """Return the coverage of one cell, drawn by a generator of its own."""
    return coverage(procedure, seeds, images, runs, procedure.generator(seeds, images), methods)


def _told(seeds: int, procedure: Procedure, shift: float, images: int, runs: int) -> Told:
    other = Procedure(procedure.rate + shift, procedure.deviation)
    return told_apart(procedure, other, seeds, images, runs, procedure.generator(seeds, images))


def tables(runs: int) -> Iterator[str]:
    """Yield all of it in Markdown, in percent, line by line as it is found.

    ``runs`` are those of 1,000 images; where there are 10,000, and for the bootstrap, which is slow, a fourth of them.
    """
    yield from _head(["error rate", "seeds' deviation", "images", *(f"{s} seeds" for s in SEEDS)])
    for procedure in (*ORDINARY, *EXTREME):
        for images, count in ((1000, runs), (10_000, runs // 4)):
            shares = [_seeded(s, procedure, images, count, [OURS])[OURS] for s in SEEDS]
            yield _line([*_described(procedure), f"{images:,}", *map(_percent, shares)])
    yield ""
    yield from _head(["error rate", "seeds' deviation", "interval", *(f"{s} seeds" for s in SEEDS)])
    for procedure in (Procedure(0.1, 0.0), Procedure(0.1, 0.01), Procedure(0.1, 0.03)):
        methods = {name: runs // 4 if name == BOOTSTRAP else runs for name in _methods(np.random.default_rng(0))}
        for name, count in methods.items():
            shares = [_seeded(s, procedure, 1000, count, [name])[name] for s in SEEDS]
            yield _line([*_described(procedure), name, *map(_percent, shares)])
    yield ""
    yield from _head(
        ["error rates", "seeds' deviation", "McNemar, one seed", *(f"{s} seeds" for s in SEEDS)],
    )
    for shift in (0.0, _SHIFT):
        for procedure in (Procedure(0.1, 0.0), Procedure(0.1, 0.01), Procedure(0.1, 0.03)):
            told = [_told(s, procedure, shift, 10_000, runs // 4) for s in SEEDS]
            rates = f"{100 * procedure.rate:.0f} and {100 * (procedure.rate + shift):.0f}"
            shares = [told[0].mcnemar, *(each.ours for each in told)]
            yield _line([rates, _described(procedure)[1], *map(_percent, shares)])


def _described(procedure: Procedure) -> tuple[str, str]:
    kind = ", one in five is bad" if procedure.one_in_five else ""
    return f"{100 * procedure.rate:.0f}", f"{100 * procedure.deviation:.0f}{kind}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _head(columns: Sequence[str]) -> Iterator[str]:
    yield _line(columns)
    yield _line(["---"] * len(columns))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


@click.command()
@click.option(
    "--runs",
    default=4000,
    show_default=True,
    help="The number of simulated experiments for each cell with 1,000 images; a quarter of it is used with 10,000 "
    "images and for the bootstrap.",
)
def main(runs: int) -> None:
    """Print the coverage of intervals, and how often a difference is found, as Markdown for docs/statistics.md."""
    for line in tables(runs):
        click.echo(line)


if __name__ == "__main__":
    main()
