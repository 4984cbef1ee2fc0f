"""Dropout that does not depend on which rows of a batch pass together."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from gradshard.pipeline.models.dropout import rows_of
from gradshard.pipeline.training.data import RankSlice


def dropping(part: RankSlice, chosen: Tensor | None, *, copies: int = 1) -> AbstractContextManager[None]:
    """Make dropout drop the same units of the rows that pass as it would drop if the whole batch passed."""
    if part.whole and chosen is None:
        return nullcontext()
    positions = torch.arange(part.rows.start, part.rows.stop)
    positions = positions if chosen is None else positions[chosen.cpu()]
    return rows_of(copies * part.total, torch.cat([positions + copy * part.total for copy in range(copies)]))
