"""Dropout that does not dominate a training step on the CPU, and whose masks do not depend on how rows are divided.

``torch.nn.functional.dropout`` draws one float per element from a serial generator: measured on model A, batch 128,
30 ms of a 126 ms bf16 step. Here every element gets one random byte (two if the rate is no multiple of 1/256), and one
draw gives eight bytes. On a GPU torch's own dropout is used, unless only some rows of a batch pass.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gradshard.storage.errors import GradshardError

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class _Rows:
    total: int
    positions: Tensor


_passing: _Rows | None = None


@contextmanager
def rows_of(total: int, positions: Tensor) -> Iterator[None]:
    """Declare, for a context, that only the rows at ``positions``, int64 (n,), of a batch of ``total`` rows pass.

    In these rows, every dropout layer drops what it would drop if the whole batch passed.
    """
    global _passing
    before, _passing = _passing, _Rows(total, positions)
    try:
        yield
    finally:
        _passing = before


class Dropout(nn.Dropout):
    """Zero elements with probability ``p`` and scale the others by 1 / (1 - p), while training.

    On the CPU, and where only some rows of a batch pass, ``p`` is rounded to a multiple of 1/65536. The mask is
    drawn from torch's default generator.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Drop elements of ``input`` in training mode."""
        if not self.training or self.p == 0 or (input.device.type != "cpu" and _passing is None):
            return super().forward(input)
        mask, scale = _mask(input, self.p), 1 / (1 - self.p)
        if torch.compiler.is_compiling():
            # Compiled, this is one kernel too, and our autograd function would be compiled again for every call.
            return input * mask * -scale
        kept: Tensor = _Kept.apply(input, mask, scale)
        return kept


class _Kept(torch.autograd.Function):
    """The elements that a mask keeps, scaled; bitwise, which reads and writes less than products with a mask."""

    @staticmethod
    def forward(context: Any, values: Tensor, mask: Tensor, scale: float) -> Tensor:
        context.save_for_backward(mask)
        context.scale = scale
        return _kept(values, mask, scale)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = context.saved_tensors
        return _kept(gradient, mask, context.scale), None, None


def _kept(values: Tensor, mask: Tensor, scale: float) -> Tensor:
    return (values.view(mask.dtype) & mask).view(values.dtype).mul_(scale)


def _mask(like: Tensor, p: float) -> Tensor:
    """Return -1 (all bits set) or 0 for each element, in integers of its width, in the memory format of ``like``."""
    bits = 8 if (p * 256).is_integer() else 16
    count = like.numel()
    whole = count if _passing is None else math.prod(like.shape[1:]) * _passing.total
    words = torch.empty(-(-whole * bits // 64), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    numbers = words.view(torch.uint8) if bits == 8 else words.view(torch.uint16).to(torch.int32)
    if _passing is not None:
        # Rows come first in every memory format that a batch of images or features has.
        rows = numbers[:whole].view(_passing.total, -1)
        numbers = rows[_passing.positions.to(like.device)].flatten()
    mask = torch.empty_like(like, dtype=_INTEGERS[like.element_size()])
    torch.ge(numbers[:count], round(p * 2**bits), out=mask.as_strided((count,), (1,)))
    return mask.neg_()


def set_dropout(model: nn.Module, rate: float, *, where: str) -> None:
    """Set the rate of a model's dropout layers; in a timm model, of the one before its classifier.

    Raises:
        GradshardError: the model has no dropout layer.
    """
    heads = [
        name for name, part in model.named_modules() if name.endswith("head_drop") and isinstance(part, nn.Dropout)
    ]
    names = heads or [name for name, part in model.named_modules() if isinstance(part, nn.Dropout)]
    if not names:
        raise GradshardError(f"training.dropout: {where} has no dropout layer whose rate could be set: set it to null")
    for name in names:
        # With torch's own, the masks would depend on how rows are divided.
        model.set_submodule(name, Dropout(rate))
