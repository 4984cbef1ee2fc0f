"""Signed gradients of a static model, for a sign store."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.models.first_pass import brief
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.models.tensors import copied
from gradshard.pipeline.types import Gradient, LabelPolicy, StorePrecision
from gradshard.storage.errors import GradshardError

# A precision as manifests record it.
DTYPES: dict[StorePrecision, str] = {"fp32": "float32", "bf16": "bfloat16"}
PRECISIONS = {dtype: precision for precision, dtype in DTYPES.items()}


@dataclass(frozen=True)
class GradientSpec:
    """Gradient whose signs a store holds, and the arithmetic of its forward passes."""

    gradient: Gradient
    policy: LabelPolicy
    precision: StorePrecision = "fp32"


def to_unit_range(images: Tensor) -> Tensor:
    """Return stored images, uint8 (n, C, H, W), as pixels in [0, 1], float32."""
    return images.float().div_(255)


def compute_signs(
    model: nn.Module, images: Tensor, labels: Tensor, direction: GradientSpec, *, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the signs of a model's input gradients.

    Args:
        model: a static model, in eval mode.
        images: uint8 (n, C, H, W), on the model's device.
        labels: true labels, int64 (n,).
        direction: which gradient, for which label.
        first: the number of the first row, for messages.

    Returns:
        Signs int8 (n, C·H·W), and the labels that the gradients were taken for, int64 (n,); both on the CPU.

    Raises:
        GradshardError: a gradient is NaN or infinite, so it has no sign; the message names the first such row.
    """

    def signs_of(rows: slice) -> tuple[Tensor, Tensor]:
        with precision_context(direction.precision, images.device):
            grad, used = input_gradient(
                model,
                to_unit_range(images[rows]),
                labels[rows],
                gradient=direction.gradient,
                policy=direction.policy,
            )
        _check_defined(grad, first + rows.start)
        return grad.sign().to(torch.int8).flatten(1).cpu(), used.cpu()

    signs, chosen = zip(*in_microbatches(signs_of, images, model), strict=True)
    return torch.cat(signs), torch.cat(chosen)


def _check_defined(grad: Tensor, first: int) -> None:
    """Refuse undefined gradients: torch's sign of NaN is 0, which would pass for a masked gradient."""
    undefined = (~grad.isfinite()).flatten(1).any(1)
    if bool(undefined.any()):
        raise GradshardError(
            f"the model's input gradient is NaN or infinite for {int(undefined.sum())} of {len(grad)} images, the "
            f"first of them row {first + int(undefined.nonzero()[0])}, so it has no sign: look for a norm, root or "
            "logarithm at 0 in the model's code"
        )


def agreement_with_float64(model: nn.Module, images: Tensor, labels: Tensor, direction: GradientSpec) -> float:
    """Return the share of signs that a computation in float64, for the same labels, gives too.

    Arguments are those of ``compute_signs``.
    """
    signs, used = compute_signs(model, images, labels, direction)
    reference = copied(model).double()

    def equal(rows: slice) -> Tensor:
        pixels, chosen = to_unit_range(images[rows]).double(), used[rows].to(images.device)
        grad, _ = input_gradient(reference, pixels, chosen, gradient=direction.gradient)
        return (grad.sign().flatten(1).cpu() == signs[rows]).float().mean(1)

    try:
        return float(torch.cat(in_microbatches(equal, images, reference)).mean())
    except RuntimeError as error:
        raise GradshardError(
            f"the model cannot be computed in float64, with which signs in bf16 are compared ({brief(error)}): let its "
            "code cast to the types of its weights and not to float32, or compute in precision fp32"
        ) from error
