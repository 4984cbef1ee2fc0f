"""Properties of a model's input gradients: their size (table 7), and how often rounding changes their sign."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradshard.pipeline.gradients.input_gradient import gradient_through, input_gradient
from gradshard.pipeline.gradients.loss import logit_margin


@dataclass(frozen=True)
class Norms:
    """Per example, the L2 norm of the gradient of the cross-entropy with respect to the image, float64 (n,)."""

    exact: Tensor
    cross_entropy: Tensor


@dataclass(frozen=True)
class WrongSigns:
    """Per example and gradient, the share of pixels whose sign in fp32 is not the one in float64; float64 (n,).

    ``zero_rows`` says for which examples the fp32 cross-entropy's gradient is 0 in every pixel, bool (n,).
    """

    exact: Tensor
    cross_entropy: Tensor
    zero_rows: Tensor


def gradient_norms(model: nn.Module, images: Tensor, labels: Tensor) -> Norms:
    """Return the norms of table 7: of sigmoid(u) times the margin's gradient, and of fp32 cross-entropy's gradient.

    Args:
        model: in eval mode.
        images: float32 (n, C, H, W) in [0, 1].
        labels: true labels, int64 (n,).
    """
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        logits = model(inputs)
        grad, _ = gradient_through(logits, inputs, labels, gradient="exact", policy="true")
    saturation = logit_margin(logits.detach().double(), labels).sigmoid()
    rounded, _ = input_gradient(model, images, labels, gradient="cross_entropy")
    return Norms(
        exact=(saturation * _norm(grad)).cpu(),
        cross_entropy=_norm(rounded).cpu(),
    )


def sign_errors(model: nn.Module, reference: nn.Module, images: Tensor, labels: Tensor) -> WrongSigns:
    """Compare both gradients' signs in fp32 with those of the margin's gradient in float64.

    Args:
        model: in eval mode, float32.
        reference: the same model in float64.
        images: float32 (n, C, H, W) in [0, 1].
        labels: true labels, int64 (n,).
    """
    truth = input_gradient(reference, images.double(), labels)[0].sign()
    exact = input_gradient(model, images, labels)[0].sign().double()
    rounded = input_gradient(model, images, labels, gradient="cross_entropy")[0].sign().double()
    return WrongSigns(
        exact=_differing(exact, truth).cpu(),
        cross_entropy=_differing(rounded, truth).cpu(),
        zero_rows=(rounded.flatten(1) == 0).all(1).cpu(),
    )


def _norm(grad: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(grad.double().flatten(1), dim=1)
    return norms


def _differing(signs: Tensor, truth: Tensor) -> Tensor:
    return (signs != truth).flatten(1).double().mean(1)
