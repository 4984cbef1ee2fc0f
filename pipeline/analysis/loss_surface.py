"""The loss of a model over the plane of two signed gradients around an image (figures 2 and 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.loss import logit_margin
from gradshard.pipeline.types import Gradient


def transferring(
    model: nn.Module, source: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, gradient: Gradient = "exact"
) -> Tensor:
    """Tell which images ``model`` classifies right while the FGSM sample from ``source`` fools it, bool (n,)."""
    adversarial = fgsm(source, images, labels, epsilon=epsilon, gradient=gradient)
    with torch.no_grad():
        right: Tensor = model(images).argmax(1) == labels
        fooled: Tensor = model(adversarial).argmax(1) != labels
    return right & fooled


def loss_plane(
    model: nn.Module,
    source: nn.Module,
    image: Tensor,
    label: Tensor,
    steps: Tensor,
    *,
    gradient: Gradient = "exact",
) -> Tensor:
    """The cross-entropy of ``model`` at x + e1 * sign(g1) + e2 * sign(g2), section 3.3.

    g1 is the gradient of the model, g2 that of the source, both at x. Nothing is clipped, as the paper's definition
    has it. The loss is softplus of the margin, which keeps its digits where softmax would round it to 0.

    Args:
        model: in eval mode; whose loss it is.
        source: in eval mode; what gives the second direction.
        image: (1, C, H, W) in [0, 1].
        label: int64 (1,).
        steps: the values of e1 and of e2, (k,), in pixel units.
        gradient: which gradient gives the signs.

    Returns:
        Float32 (k, k) on the CPU; rows follow e1, columns e2.
    """
    own, other = (input_gradient(m, image, label, gradient=gradient)[0].sign() for m in (model, source))
    rows = []
    for step in steps:
        points = image + step * own + steps.view(-1, 1, 1, 1) * other
        with torch.no_grad():
            rows.append(functional.softplus(logit_margin(model(points).float(), label.expand(len(steps)))).cpu())
    return torch.stack(rows)
