"""Average pooling as TensorFlow pads it, for Inception v3 with weights that were trained in TensorFlow.

At the border TensorFlow averages only the pixels inside the image, while timm's Inception v3 counts padding as zeros.
"""

from torch import Tensor, nn
from torch.nn import functional

_POOLED = 3


def pool_as_tensorflow(model: nn.Module) -> None:
    """Make the pooled branches of timm's Inception v3 pool as TensorFlow does; no parameter changes its name."""
    for part in model.modules():
        pooled = getattr(part, "branch_pool", None)
        if isinstance(pooled, nn.Module):
            pooled.register_forward_pre_hook(_leave_padding_out)


def _leave_padding_out(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (means,) = inputs
    present = functional.avg_pool2d(means.new_ones(1, 1, *means.shape[2:]), _POOLED, stride=1, padding=1)
    return (means / present,)
