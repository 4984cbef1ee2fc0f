"""Other intervals for the error rate of a training procedure, which `coverage` holds ours against.

Each takes errors (runs, seeds, images) and gives the lower and the upper end of a 95 % interval for every run.
"""

import numpy as np
from scipy.special import stdtrit

from gradshard.pipeline.evaluation.seed_variance import Floats, crossed_mean
from gradshard.pipeline.evaluation.statistics import Z95, score_interval

Interval = tuple[Floats, Floats]
Errors = np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]

_RESAMPLES = 400


def ours(errors: Errors) -> Interval:
    """That of `gradshard.pipeline.evaluation.seed_variance`."""
    return crossed_mean(errors).rate_interval()


def images_of_one_seed(errors: Errors) -> Interval:
    """Return Wilson's over the test images of a single training run, which most tables show."""
    first = errors[:, 0]
    return score_interval(first.mean(axis=1), first.shape[1], Z95)


def seeds_alone(errors: Errors) -> Interval:
    """Return Student's over the seeds' error rates, as if there were no other test images."""
    rates = errors.mean(axis=2)
    count = rates.shape[1]
    return _around(rates.mean(axis=1), stdtrit(count - 1, 0.975) * rates.std(axis=1, ddof=1) / np.sqrt(count))


def satterthwaite(errors: Errors) -> Interval:
    """Return the textbook's for a sum of mean squares: one t with estimated degrees of freedom (Satterthwaite 1946)."""
    found = crossed_mean(errors)
    total = found.seed_variance + found.image_variance
    squares = found.seed_variance**2 / (found.seeds - 1) + found.image_variance**2 / (found.images - 1)
    # Without any error both are 0, and so is the margin.
    degrees = total**2 / np.where(squares > 0, squares, 1.0)
    return _around(found.mean, stdtrit(np.maximum(1.0, degrees), 0.975) * np.sqrt(total))


def bootstrap(errors: Errors, rng: np.random.Generator) -> Interval:
    """Percentiles of means over seeds and images drawn anew, independently of each other (Owen 2007)."""
    ends = np.array([_percentiles(run, rng) for run in errors])
    return ends[:, 0], ends[:, 1]


def _percentiles(errors: np.ndarray[tuple[int, int], np.dtype[np.bool_]], rng: np.random.Generator) -> Floats:
    """Images on which the same seeds err are drawn together: there are at most as many kinds as subsets of seeds."""
    seeds, images = errors.shape
    kinds, counts = np.unique(errors, axis=1, return_counts=True)
    drawn_images = rng.multinomial(images, counts / images, _RESAMPLES)
    drawn_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), _RESAMPLES)
    means = np.einsum("bs,bs->b", drawn_images @ kinds.T.astype(np.int64), drawn_seeds) / errors.size
    ends: Floats = np.quantile(means, [0.025, 0.975])
    return ends


def _around(centre: Floats, margin: Floats) -> Interval:
    return centre - margin, centre + margin
