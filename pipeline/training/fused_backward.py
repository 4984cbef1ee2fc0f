"""One backward pass that gives the parameters the gradient of the clean loss, and the images that of the attack's.

The cross-entropy is J = log(1 + exp(u)) for the margin u (``gradients.loss.margin``). So in a model whose
rows do not touch one another, going backward from the mean of sigmoid(u_i) u_i, the factors held constant, gives the
parameters the gradient of the mean of J, and each image a positive multiple of its own gradient of u: the same signs,
where the attack is about the true label.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.gradients.loss import logit_margin
from gradshard.pipeline.models.dropout import Dropout
from gradshard.pipeline.models.flatten import Flatten
from gradshard.pipeline.models.grayscale import GreyConv2d
from gradshard.pipeline.training.optimizers import trained
from gradshard.pipeline.types import Gradient

# What a factor is at least: far below what single precision adds to the other examples' share of a gradient, and far
# above what would lose a sign on its way to the image.
_LEAST = 1e-12
# Layers that treat each row by itself, and drop of some rows what they drop of them in their batch.
_ROW_BY_ROW = frozenset(
    (nn.Sequential, nn.Conv2d, GreyConv2d, nn.Linear, nn.ReLU, nn.ZeroPad2d, nn.MaxPool2d, Dropout, Flatten, nn.Flatten)
)


def row_by_row(model: nn.Module) -> bool:
    """Tell whether a model is known to treat each row of a batch by itself."""
    return all(type(module) in _ROW_BY_ROW for module in model.modules())


def grads_on_the_way(
    logits: Tensor, images: Tensor, labels: Tensor, model: nn.Module, *, gradient: Gradient, weight: float
) -> Tensor:
    """Add the gradient of ``weight`` times the mean cross-entropy to the parameters' ``grad``.

    Args:
        logits: what the model gave for ``images``, with its graph, (n, classes); the graph is used up.
        images: (n, C, H, W), which require a gradient and have none yet.
        labels: true labels, int64 (n,).
        model: ``row_by_row``.
        gradient: which gradient the images are to have.
        weight: positive.

    Returns:
        For each image a positive multiple of the gradient of its attack loss for its true label, (n, C, H, W).
    """
    values = logits.float()
    if gradient == "exact":
        ahead = logit_margin(values, labels)
        loss = (ahead.detach().sigmoid().clamp_min(_LEAST) * ahead).mean()
    else:
        loss = functional.cross_entropy(values, labels)
    torch.autograd.backward(weight * loss, inputs=[images, *trained(model)])
    assert images.grad is not None
    return images.grad
