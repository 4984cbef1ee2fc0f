"""Choice of the source that crafts each batch's perturbation (section 5.2): a pure function of (seed, epoch, batch)."""

from collections.abc import Sequence

import numpy as np

from gradshard.pipeline.types import ScheduleKind


def source(kind: ScheduleKind, sources: Sequence[str], *, seed: int, epoch: int, batch: int, batches: int) -> str:
    """The source of one batch.

    ``random`` draws uniformly and independently for every batch, as the paper advises; ``rotate`` takes the sources in
    turn, so that each crafts exactly every n-th batch.

    Args:
        kind: how the source is chosen.
        sources: the names of the n sources; the model being trained is ``self``.
        seed: of the run.
        epoch: counted from 0.
        batch: within the epoch, counted from 0.
        batches: per epoch.
    """
    if kind == "rotate":
        return sources[(epoch * batches + batch) % len(sources)]
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, batch))))
    return sources[int(draws.integers(len(sources)))]
