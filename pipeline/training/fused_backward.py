"""One backward pass that gives parameters the gradient of the clean loss, and images that of the attack's loss.

The cross-entropy is J = log(1 + exp(u)) for the margin u (``gradients.loss.logit_margin``). So in a model whose rows do
not affect one another, going backward from the mean of sigmoid(u_i) u_i, the factors held constant, gives the
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

# The least factor: far below the rounding errors of the other examples' share of a gradient, and far above values with
# which a sign would be lost on its way to the image.
_LEAST = 1e-12
# The largest share of a batch's rows that pass once more; for more, a second backward pass of all takes less time.
_FEW = 0.25
# Layers that treat each row by itself, and whose dropout is the same for some rows as in their batch.
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
    """Go backward once for both: the clean loss, whose gradient is then in the parameters' ``grad``, and the images.

    Args:
        passes: through the model.
        logits: the model's output for ``images``, with its graph, (n, classes).
        images: those of the batch, (n, C, H, W), which require a gradient.
        batch: the whole batch.
        chosen: the labels that the attack is about, int64 (n,).
        adversary: whose attack it is.
        random: the state of torch's generator before the pass.

    Returns:
        For each image a positive multiple of the gradient of its attack loss, (n, C, H, W); none, and nothing is done,
        if the model is not known to be ``row_by_row`` or a second backward pass takes less time. On a GPU it does,
        because finding out there which rows need a pass of their own takes longer.
    """
    if images.device.type != "cpu" or not adversary.clean_weight or not row_by_row(passes.model):
        return None
    others = (chosen != batch.labels).nonzero().flatten()
    if len(others) > _FEW * len(images):
        return None
    gradient, weight = adversary.gradient, adversary.clean_weight
    grad = grads_on_the_way(logits, images, batch.labels, passes.model, gradient=gradient, weight=weight)
    if len(others):
        # These rows' attack is about another label than the true one, so they pass once more, with the same dropout.
        with torch.random.fork_rng(devices=()), dropping(batch.part, others):
            torch.set_rng_state(random)
            grad[others], _ = input_gradient(passes, batch.images[others], chosen[others], gradient=gradient)
    return grad


def grads_on_the_way(
    logits: Tensor, images: Tensor, labels: Tensor, model: nn.Module, *, gradient: Gradient, weight: float
) -> Tensor:
    """Add the gradient of ``weight`` times the mean cross-entropy to the parameters' ``grad``.

    Args:
        logits: the model's output for ``images``, with its graph, (n, classes); the graph is used up.
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
