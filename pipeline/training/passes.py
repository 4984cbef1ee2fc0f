"""Passes of a step's images through the model that is trained, each of them counted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.training.batch_norm import frozen_statistics
from gradshard.pipeline.training.data import Batch, RankSlice
from gradshard.pipeline.training.dropping import dropping
from gradshard.pipeline.types import Mode


class PassCounts(NamedTuple):
    """Numbers of images that passed through a model: forward, and backward, whatever the gradient was of."""

    forward: int = 0
    backward: int = 0


class Passes:
    """A model that is trained, and how many images passed through it.

    Called with images it gives logits, (n, classes), and counts both directions: a backward pass counts each time that
    a gradient reaches the logits.

    Args:
        model: the model itself.
        through: the model compiled, if it is.
        alone: no other rank waits for this one's gradients, which a method may thus compute when it likes.
    """

    def __init__(self, model: nn.Module, *, through: nn.Module | None = None, alone: bool = True) -> None:
        self.model = model
        self.alone = alone
        self._through = through or model
        self._forward = 0
        self._backward = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Pass images (n, C, H, W) as they are."""
        logits: Tensor = self._through(images)
        rows = len(images)
        self._forward += rows
        if logits.requires_grad:
            logits.register_hook(lambda _: self._went_back(rows))  # type: ignore[no-untyped-call]
        return logits

    def logits(self, images: Tensor, part: RankSlice, *, copies: int = 1) -> Tensor:
        """Pass a step's images, ``copies`` versions of its batch after one another, with that batch's dropout masks."""
        with dropping(part, None, copies=copies):
            return self(images)

    @contextmanager
    def crafting(
        self, part: RankSlice, *, mode: Mode = "train", chosen: Tensor | None = None
    ) -> Iterator[Callable[[Tensor], Tensor]]:
        """A context for passes that only craft: they move no running statistics.

        Args:
            part: the rows of the step's whole batch that are here.
            mode: the model's, meanwhile; afterwards it is in train mode.
            chosen: which of these rows pass, bool or int64; by default all.
        """
        self.model.train(mode == "train")
        try:
            with frozen_statistics(self.model), dropping(part, chosen):
                yield self
        finally:
            self.model.train()

    def take_counts(self) -> PassCounts:
        """Give the numbers of images since this was asked before."""
        counts = PassCounts(self._forward, self._backward)
        self._forward = self._backward = 0
        return counts

    def _went_back(self, rows: int) -> None:
        self._backward += rows


def mean_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return this rank's part of the mean cross-entropy over the whole batch."""
    if batch.part.whole:
        return functional.cross_entropy(logits.float(), batch.labels)
    return functional.cross_entropy(logits.float(), batch.labels, reduction="sum") / batch.part.total


def whole_batch(batch: Batch, draw: Callable[[torch.Size], Tensor]) -> Tensor:
    """Draw something for the images of the whole batch, whichever rank has which, and give this rank's rows of it."""
    return batch.part.of(draw(torch.Size((batch.part.total, *batch.images.shape[1:]))))
