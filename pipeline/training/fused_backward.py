"""One backward pass that gives the parameters the gradient of the clean loss, and the images that of the attack's.

The cross-entropy is J = log(1 + exp(u)) for the margin u (``gradients.loss.margin``). So in a model whose
rows do not touch one another, going backward from the mean of sigmoid(u_i) u_i, the factors held constant, gives the
parameters the gradient of the mean of J, and each image a positive multiple of its own gradient of u: the same signs,
where the attack is about the true label.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.loss import logit_margin
from gradshard.pipeline.models.cpu_layers import SHORTCUTS
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.dropping import dropping
from gradshard.pipeline.training.optimizers import trained
from gradshard.pipeline.training.passes import Passes
from gradshard.pipeline.types import Gradient

# What a factor is at least: far below what single precision adds to the other examples' share of a gradient, and far
# above what would lose a sign on its way to the image.
_LEAST = 1e-12
# Of a batch's rows, those that pass once more; with more of them a second backward pass of all takes less.
_FEW = 0.25
# Layers that treat each row by itself, and drop of some rows what they drop of them in their batch.
_ROW_BY_ROW = frozenset(
    (nn.Sequential, nn.Conv2d, nn.Linear, nn.ReLU, nn.ZeroPad2d, nn.MaxPool2d, nn.Flatten, *SHORTCUTS.values())
)


def row_by_row(model: nn.Module) -> bool:
    """Tell whether a model is known to treat each row of a batch by itself."""
    return all(type(module) in _ROW_BY_ROW for module in model.modules())


def grad_with_the_loss(
    passes: Passes,
    logits: Tensor,
    images: Tensor,
    batch: Batch,
    chosen: Tensor,
    adversary: Adversary,
    random: Tensor,
) -> Tensor | None:
    """Go backward once for the clean loss, whose gradient is then in the parameters' ``grad``, and for the images'.

    Args:
        passes: through the model.
        logits: what it gave for ``images``, with its graph, (n, classes).
        images: those of the batch, (n, C, H, W), which require a gradient.
        batch: the whole batch.
        chosen: the labels that the attack is about, int64 (n,).
        adversary: whose attack it is.
        random: the state of torch's generator before the pass.

    Returns:
        For each image a positive multiple of the gradient of its attack loss, (n, C, H, W); nothing, and nothing is
        done, where the model is not known to be ``row_by_row``, or a second backward pass takes less time. On a GPU it
        does: to learn there which rows need a pass of their own takes longer.
    """
    if images.device.type != "cpu" or not adversary.clean_weight or not row_by_row(passes.model):
        return None
    others = (chosen != batch.labels).nonzero().flatten()
    if len(others) > _FEW * len(images):
        return None
    gradient, weight = adversary.gradient, adversary.clean_weight
    grad = grads_on_the_way(logits, images, batch.labels, passes.model, gradient=gradient, weight=weight)
    if len(others):
        # About another label than the true one: these rows pass once more, and the same features are dropped.
        with torch.random.fork_rng(devices=()), dropping(batch.part, others):
            torch.set_rng_state(random)
            grad[others], _ = input_gradient(passes, batch.images[others], chosen[others], gradient=gradient)
    return grad


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
