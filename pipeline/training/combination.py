"""Losses of one batch under several sources, combined into one, after PubDef (Sitawarin et al. 2024)."""

import torch
from torch import Tensor

from gradshard.pipeline.types import Combination


def combined(kind: Combination, losses: Tensor, weights: Tensor, *, k: int) -> Tensor:
    """Return one loss for each example: the weighted mean of its losses under all sources, or under the worst.

    ``all`` and ``loss_weighted`` take the mean over all sources, ``top_k`` that over the ``k`` sources under which the
    example has the largest losses, as PubDef's code does.

    Args:
        kind: which sources count.
        losses: under each of S sources, float (S, n).
        weights: of the sources, positive, (S,); their sum does not matter.
        k: how many sources count for ``top_k``, at most S.

    Returns:
        Float (n,).
    """
    if kind != "top_k":
        return (weights / weights.sum()) @ losses
    largest, which = losses.topk(k, dim=0)
    shares = weights[which] / weights[which].sum(0)
    return (shares * largest).sum(0)


@torch.no_grad()
def moving_average(average: Tensor, losses: Tensor, *, decay: float) -> Tensor:
    """Return the moving average of each source's loss after one more batch; all are float (S,).

    ``loss_weighted`` multiplies the sources' weights by the average over the batches before, which begins at 1.
    (PubDef's code includes the current batch, and begins at 1 / S.)
    """
    return decay * average + (1 - decay) * losses
