"""Rows whose attack of many steps ends elsewhere on another machine, because rounding decides one of its steps.

Where a gradient is near 0 or the model has a kink, the last bits of a pass, which depend on the machine, its threads
and the batch, choose one of several ends. A stored row that differs from the end found first is therefore crafted again
with inputs that are off by as much as rounding is. A row that was made in any other way meets none of these ends.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gradshard.pipeline.audit.recompute import RowAudit, Rows, Thresholds

_DRAWS = 16
# Of the range of a pixel: some last bits of what a layer adds up in fp32.
_ROUNDING = 1e-6
# If more rows differ, rounding is not the cause.
_FEW = 0.05


class Tipped(nn.Module):
    """A model whose inputs are off by rounding errors, the same in each pass."""

    def __init__(self, model: nn.Module, *, draw: int) -> None:
        super().__init__()
        self.model, self.draw = model, draw
        # Some libraries set a model's own mode in all its parts when they are done.
        self.train(model.training)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of images, float (n, C, H, W) in [0, 1], each off by the same errors."""
        generator = torch.Generator().manual_seed(self.draw)
        error = _ROUNDING * (2 * torch.rand(pixels.shape[1:], generator=generator) - 1)
        logits: Tensor = self.model(pixels + error.to(pixels))
        return logits


def second_look(
    found: RowAudit, model: nn.Module, least: Thresholds, craft: Callable[[nn.Module, Rows], RowAudit]
) -> RowAudit:
    """Return an audit in which each row below the limits has the best gain and agreement that rounding can give it.

    Args:
        found: the audit of the rows as they were crafted first.
        model: the static model.
        least: the limits.
        craft: returns the audit of some of the rows, (m,), crafted again on a model.
    """
    suspects = np.searchsorted(found.rows, found.bad(least))
    if not len(suspects) or len(suspects) > max(1, _FEW * len(found.rows)):
        return found
    for draw in range(_DRAWS):
        found = found.best(craft(Tipped(model, draw=draw), found.rows[suspects]), at=suspects)
    return found
