"""The loss of one batch under a method, in the arithmetic and over the ranks of a run."""

from contextlib import nullcontext
from dataclasses import replace

from torch import nn

from gradshard.pipeline.models.auxiliary import AuxiliaryHead
from gradshard.pipeline.models.precision import Arithmetic, precision_context
from gradshard.pipeline.training.batch_norm import synchronised
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.methods.method import Losses, Method
from gradshard.pipeline.training.passes import Passes
from gradshard.pipeline.types import BatchNorm


class BatchLoss(nn.Module):
    """The losses of a batch under a model, as a method defines them.

    ``smoothing`` is the share of each label that is spread over all classes; the loss of an ``auxiliary`` classifier
    counts beside the model's own. With several ranks, ``total`` is scaled so that the mean of its gradients over the
    ranks is the gradient of the loss of the whole batch.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        *,
        arithmetic: Arithmetic,
        batch_norm: BatchNorm = "per_rank",
        ranks: int = 1,
        compiled: nn.Module | None = None,
        smoothing: float = 0.0,
        auxiliary: AuxiliaryHead | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.auxiliary = auxiliary
        self.passes = Passes(
            model, through=compiled, alone=ranks == 1 and compiled is None, smoothing=smoothing, auxiliary=auxiliary
        )
        self._method = method
        self._arithmetic = arithmetic
        self._synchronised = batch_norm == "synchronised" and ranks > 1
        self._ranks = ranks

    def forward(self, batch: Batch) -> Losses:
        """Compute the losses of a step's batch."""
        with (
            precision_context(self._arithmetic, batch.images.device),
            synchronised() if self._synchronised else nullcontext(),
        ):
            losses = self._method.losses(batch, self.passes)
        return replace(losses, total=self._ranks * losses.total)
