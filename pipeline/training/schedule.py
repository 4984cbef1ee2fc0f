"""Choice of the source that crafts each batch's perturbation (section 5.2), and of the copy of its store.

Both are pure functions of (seed, epoch, batch).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gradshard.pipeline.types import ScheduleOrCombination

_EQUAL: Mapping[str, float] = {}


def source(
    kind: ScheduleOrCombination,
    sources: Sequence[str],
    *,
    seed: int,
    epoch: int,
    batch: int,
    batches: int,
    weights: Mapping[str, float] = _EQUAL,
) -> str:
    """Return the source of one batch.

    ``random`` draws independently for every batch, uniformly as the paper advises or by weight; ``rotate`` takes the
    sources in turn, each for as many batches as it weighs, so that of n sources without weights each crafts exactly
    every n-th batch.

    Args:
        kind: how the source is chosen; a combination is allowed only with a single source.
        sources: the names of the n sources; the model being trained is ``self``.
        seed: of the run.
        epoch: counted from 0.
        batch: within the epoch, counted from 0.
        batches: per epoch.
        weights: of the sources, positive, those not named weighing 1; whole numbers if they rotate.
    """
    if len(sources) == 1:
        return sources[0]
    shares = [weights.get(name, 1.0) for name in sources]
    if kind == "rotate":
        turns = [name for name, share in zip(sources, shares, strict=True) for _ in range(round(share))]
        return turns[(epoch * batches + batch) % len(turns)]
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, batch))))
    if len(set(shares)) == 1:
        return sources[int(draws.integers(len(sources)))]
    return sources[int(draws.choice(len(sources), p=np.array(shares) / sum(shares)))]


def turn(*, seed: int, epoch: int) -> int:
    """Return the number of the copy that an epoch's batches take, modulo how many a store has: each in its turn.

    With one copy per epoch, each chunk of a store is read once. This is as random as drawing a copy for each image
    (PubDef), because the contents of copies are independent from row to row; and K epochs use all K copies.
    """
    return seed + epoch
