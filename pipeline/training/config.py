"""Steps of a training run, as pure functions of its settings."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.training import schedule
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.types import SELF, BatchNorm
from gradshard.storage.streaming.dealing import DealtBatches
from gradshard.storage.streaming.reader import ReadingPlan
from gradshard.storage.streaming.shuffle import Rows, ShuffleOrder
from gradshard.storage.streaming.windows import Request, Stores

CLEAN_BATCH = ""


@dataclass(frozen=True)
class TrainingRun:
    """A training run; ``adversary`` is none for a static model.

    ``batch`` is the rows of a step over all ``ranks``; the last batch of an epoch may be smaller. Besides the ``rows``
    rows that are trained on, the dataset may have some that are ``held_back``. ``average`` is the decay of the weights'
    moving average, none if they are taken as they are. ``smoothing`` is the share of each label that is spread over all
    classes. ``sample_shape`` is that of an image.

    An epoch is as many steps as there are batches. If each batch is trained on for ``replays`` consecutive steps, the
    run goes through the rows that many times less often.
    """

    rows: int
    batch: int
    epochs: int
    seed: int
    optimization: Optimization
    reading: ReadingPlan
    adversary: Adversary | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch_norm: BatchNorm = "per_rank"
    smoothing: float = 0.0
    average: float | None = None
    ranks: Rank = field(default_factory=Rank)
    held_back: Rows | None = field(default=None, compare=False)
    sample_shape: tuple[int, ...] = ()
    replays: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch: as many as batches, of which the last may be smaller."""
        return math.ceil(self.rows / self.batch)

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.optimization.rate(step // self.steps_per_epoch, self.epochs)

    def live(self, step: int) -> bool:
        """Tell whether the model itself crafts for a step's batch, alone or beside others."""
        if self.adversary is not None and self.adversary.combination:
            return SELF in self.adversary.sources
        return self.source(step) == SELF

    def source(self, step: int) -> str:
        """Name the one source that crafts the perturbation of a step's batch; empty for clean training."""
        if self.adversary is None:
            return CLEAN_BATCH
        epoch, batch = divmod(step, self.steps_per_epoch)
        return schedule.source(
            self.adversary.schedule,
            self.adversary.sources,
            seed=self.seed,
            epoch=epoch,
            batch=batch,
            batches=self.steps_per_epoch,
            weights=self.adversary.weights,
        )

    def stores(self, step: int) -> Stores:
        """Name the store, or with a combination the stores, whose signs a step's batch takes."""
        if self.adversary is not None and self.adversary.combination:
            return self.adversary.stores
        source = self.source(step)
        return None if source in (SELF, CLEAN_BATCH) else source

    def drawn(self, step: int) -> int:
        """Return the number, among all batches that are read, of the one that a step trains on."""
        return step // self.replays

    def turn(self, step: int) -> int:
        """Return the number of the copy that a step's batch takes, modulo how many copies a store has."""
        return self._turn(self.drawn(step) // self.steps_per_epoch)

    def batch_rows(self, step: int) -> int:
        """Count the rows of a step's batch, over all ranks."""
        begin = self.drawn(step) % self.steps_per_epoch * self.batch
        return min(self.batch, self.rows - begin)

    def requests(self, start: int) -> Iterator[Request]:
        """Yield the request that this rank reads for each batch, from that of step ``start`` on."""
        begin = self.drawn(start)
        for epoch in range(begin // self.steps_per_epoch, self.epochs // self.replays):
            first = max(begin - epoch * self.steps_per_epoch, 0)
            for request in self._from_memory(epoch, first) if self.reading.resident else self._dealt(epoch, first):
                yield request.part(self.ranks.part(len(request.rows)))

    def _from_memory(self, epoch: int, first: int) -> Iterator[Request]:
        """Yield an epoch's batches, from batch ``first`` on, in a permutation of all rows."""
        rows = self._order(epoch).take(0, self.stored_rows)
        if self.held_back is not None:
            rows = rows[~np.isin(rows, self.held_back)]
        for batch in range(first, self.steps_per_epoch):
            chosen = rows[batch * self.batch : (batch + 1) * self.batch]
            yield Request(chosen, self._stores_of(epoch, batch), epoch, self._turn(epoch))

    def _dealt(self, epoch: int, first: int) -> Iterator[Request]:
        """Yield an epoch's batches of streamed rows; the order's windows are of all rows, so that chunks stay whole."""
        dealt = DealtBatches(
            self._order(epoch), self.batch, lambda batch: self._stores_of(epoch, batch), left_out=self.held_back
        )
        for request in dealt.requests(first=first):
            yield request._replace(turn=self._turn(epoch))

    def _stores_of(self, epoch: int, batch: int) -> Stores:
        return self.stores((epoch * self.steps_per_epoch + batch) * self.replays)

    def _turn(self, epoch: int) -> int:
        return schedule.turn(seed=self.seed, epoch=epoch)

    def _order(self, epoch: int) -> ShuffleOrder:
        return self.reading.order(self.stored_rows, seed=self.seed, epoch=epoch)

    @property
    def stored_rows(self) -> int:
        """Rows of the dataset, including those held back."""
        return self.rows + (0 if self.held_back is None else len(self.held_back))
