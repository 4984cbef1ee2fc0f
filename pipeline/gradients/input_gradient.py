"""The gradient of an attack's loss with respect to the images; a model's parameters keep their ``grad`` untouched."""

from collections.abc import Callable

import torch
from torch import Tensor

from gradshard.pipeline.gradients.loss import attack_labels, attack_loss
from gradshard.pipeline.types import Gradient, LabelPolicy
from gradshard.storage.errors import GradshardError


def input_gradient(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor | None,
    *,
    gradient: Gradient = "exact",
    policy: LabelPolicy = "true",
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the attack's loss with respect to the images, and the labels it was taken for.

    Args:
        model: maps images to logits (N, classes).
        images: (N, C, H, W).
        labels: true labels int64 (N,), needed for the policy ``true``.
        gradient: ``exact``: of the margin u, with exactly the signs of the cross-entropy's; ``cross_entropy``: of the
            softmax cross-entropy as the paper's code computed it.
        policy: which labels the loss is taken for.

    Returns:
        Gradient (N, C, H, W) in the dtype of the images, and labels int64 (N,).

    Raises:
        GradshardError: there is no such gradient or policy, there are no labels for the policy ``true``, the images are
            not floats, or the model gives something else than logits.
    """
    if not images.is_floating_point():
        raise GradshardError(f"images are {images.dtype}, at which no gradient can be taken: divide them by 255")
    if torch.is_inference_mode_enabled():
        raise GradshardError("gradients are left out by torch.inference_mode: use torch.no_grad instead")
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        return gradient_through(model(inputs), inputs, labels, gradient=gradient, policy=policy)


def gradient_through(
    logits: Tensor,
    inputs: Tensor,
    labels: Tensor | None,
    *,
    gradient: Gradient,
    policy: LabelPolicy,
    keep_graph: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return what ``input_gradient`` returns, from a forward pass that is already made.

    Args:
        logits: the model's logits of ``inputs``, with their graph.
        inputs: the images of that pass, (N, C, H, W), which require a gradient.
        labels: as for ``input_gradient``.
        gradient: as for ``input_gradient``.
        policy: as for ``input_gradient``.
        keep_graph: whether a later backward pass goes through the same graph.
    """
    if not isinstance(logits, Tensor):
        raise GradshardError(
            f"the model gives a {type(logits).__name__} and not logits: let it return its logits alone"
        )
    chosen = attack_labels(logits, labels, policy)
    (grad,) = torch.autograd.grad(attack_loss(logits, chosen, gradient), inputs, retain_graph=keep_graph)
    return grad, chosen
