"""Passes of a step's images through the model that is trained, each of them counted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.models.auxiliary import AuxiliaryHead
from gradshard.pipeline.training.batch_norm import frozen_statistics
from gradshard.pipeline.training.data import Batch, RankSlice
from gradshard.pipeline.training.dropping import dropping
from gradshard.pipeline.types import Mode


class PassCounts(NamedTuple):
    """Numbers of images that passed through a model: forward, and backward, whatever the gradient was of."""

    forward: int = 0
    backward: int = 0


class Passes:
    """A model in training, the number of images that passed through it, and the losses of its output.

    Called with images it gives logits, (n, classes), and counts both directions: a backward pass counts each time that
    a gradient reaches the logits.

    Args:
        model: the model itself.
        through: the compiled model, if it is compiled.
        alone: no other rank waits for this one's gradients, so that a method may compute them at any time.
        smoothing: the share of each label that is spread over all classes (Szegedy et al. 2016, section 7).
        auxiliary: a second classifier, whose loss counts beside the model's own.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        through: nn.Module | None = None,
        alone: bool = True,
        smoothing: float = 0.0,
        auxiliary: AuxiliaryHead | None = None,
    ) -> None:
        self.model = model
        self.alone = alone and not smoothing and auxiliary is None
        self._through = through or model
        self._smoothing = smoothing
        self._auxiliary = auxiliary
        self._forward = 0
        self._backward = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Pass images (n, C, H, W) as they are."""
        return self._pass(self._through, images)

    def logits(self, images: Tensor, part: RankSlice, *, copies: int = 1) -> Tensor:
        """Pass a step's images, ``copies`` versions of its batch after one another, with that batch's dropout masks.

        With an auxiliary classifier the result is (n, 2, classes): the model's ``own`` logits, and then the
        classifier's.
        """
        through = self._through if self._auxiliary is None else partial(self._auxiliary, self.model)
        with dropping(part, None, copies=copies):
            return self._pass(through, images)

    def own(self, logits: Tensor) -> Tensor:
        """Return the model's own logits, (n, classes), out of ``logits``."""
        return logits if self._auxiliary is None else logits[:, 0]

    def mean_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return this rank's part of the mean loss over the whole batch."""
        if batch.part.whole:
            return self.cross_entropy(logits, batch.labels)
        return self.cross_entropy(logits, batch.labels, reduction="sum") / batch.part.total

    def cross_entropy(self, logits: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
        """Return the cross-entropy with smoothed labels, plus that of the auxiliary classifier times its weight."""
        loss = partial(functional.cross_entropy, target=labels, reduction=reduction, label_smoothing=self._smoothing)
        if self._auxiliary is None:
            return loss(logits.float())
        own, beside = logits.float().unbind(dim=1)
        return loss(own) + self._auxiliary.weight * loss(beside)

    @contextmanager
    def crafting(
        self, part: RankSlice, *, mode: Mode = "train", chosen: Tensor | None = None
    ) -> Iterator[Callable[[Tensor], Tensor]]:
        """Yield the model, in a context, for passes that only craft: they change no running statistics.

        Args:
            part: the rows of the step's whole batch that are here.
            mode: the model's mode in the context; afterwards it is in train mode.
            chosen: which of these rows pass, bool or int64; by default all.
        """
        self.model.train(mode == "train")
        try:
            with frozen_statistics(self.model), dropping(part, chosen):
                yield self
        finally:
            self.model.train()

    def take_counts(self) -> PassCounts:
        """Return the numbers of images since the last call."""
        counts = PassCounts(self._forward, self._backward)
        self._forward = self._backward = 0
        return counts

    def _pass(self, through: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        logits, rows = through(images), len(images)
        self._forward += rows
        if logits.requires_grad:
            logits.register_hook(lambda _: self._went_back(rows))  # type: ignore[no-untyped-call]
        return logits

    def _went_back(self, rows: int) -> None:
        self._backward += rows


def whole_batch(batch: Batch, draw: Callable[[torch.Size], Tensor]) -> Tensor:
    """Draw something for the images of the whole batch, regardless of ranks, and return this rank's rows of it."""
    return batch.part.of(draw(torch.Size((batch.part.total, *batch.images.shape[1:]))))
