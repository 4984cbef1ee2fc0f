"""Batch normalisation by the statistics of the whole batch, over all processes that train, on any device.

``torch.nn.SyncBatchNorm`` works on GPUs alone, and models with batch-norm layers of their own (timm's, for one) need
converters of their own. All of them call ``torch.nn.functional.batch_norm``, and that is what is replaced here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keep running statistics, and all other buffers, unchanged in a context, for passes that only craft."""
    kept = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]
    for buffers, its in kept:
        buffers.update({name: None if tensor is None else tensor.clone() for name, tensor in its.items()})
    try:
        yield
    finally:
        for buffers, its in kept:
            buffers.update(its)


class synchronised(TorchFunctionMode):  # noqa: N801 - used as a context
    """A context in which batch normalisation in training mode takes mean and variance over all processes."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace ``functional.batch_norm`` and no other function."""
        chosen = _batch_norm_over_ranks if func is functional.batch_norm else func
        return chosen(*args, **(kwargs or {}))


def _batch_norm_over_ranks(
    input: Tensor,  # noqa: A002 - the names of the function that this stands for
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    axes = [axis for axis in range(input.dim()) if axis != 1]
    channels, values = input.shape[1], input.float()
    count = values.new_tensor([input.numel() // channels])
    n, sums = _over_ranks(count), _over_ranks(values.sum(axes))
    mean = sums / n
    shape = [1, channels, *[1] * (input.dim() - 2)]
    # Two passes: the mean of squares less the square of the mean would lose the digits of a small variance.
    centred = values - mean.view(shape)
    variance = _over_ranks(centred.square().sum(axes)) / n
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * n / (n - 1).clamp_min(1)).to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt()
    result: Tensor = centred * (scale if weight is None else scale * weight).view(shape)
    return (result if bias is None else result + bias.view(shape)).to(input.dtype)


def _over_ranks(values: Tensor) -> Tensor:
    """Return the sum over all processes, through which gradients pass."""
    from torch.distributed.nn.functional import all_reduce  # importing it takes a third of a second

    summed: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return summed
