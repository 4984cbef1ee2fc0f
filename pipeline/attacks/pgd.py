"""Attacks that climb in many small steps inside the ball: PGD, momentum iterative FGSM, and the C&W hinge.

Every step follows a sign, and stays within epsilon of the image (L-infinity) and within [0, 1].
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from gradshard.pipeline.gradients.loss import attack_loss
from gradshard.pipeline.gradients.perturb import project

Loss = Literal["exact", "cross_entropy", "hinge"]
# Maps logits (N, classes) and labels to a number, summed over the images so that each image's gradient is its own.
Objective = Callable[[Tensor, Tensor], Tensor]


def cw_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the lead of the best other class, float (N,): Carlini and Wagner's loss (2017, f6) without its cut-off.

    With the cut-off, an attack stops as soon as it succeeds; without it, the attack goes on, and still succeeds.
    """
    column = labels.unsqueeze(1)
    return logits.scatter(1, column, -torch.inf).amax(1) - logits.gather(1, column).squeeze(1)


def iterate_linf(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    start: Tensor,
    epsilon: float | Tensor,
    step: float | Tensor,
    steps: int,
    loss: Loss | Objective = "exact",
    momentum: float = 0.0,
    targeted: bool = False,
) -> Tensor:
    """Climb from ``start`` in ``steps`` signed steps of size ``step``, or descend if ``targeted``; images (N, C, H, W).

    Epsilon and step are numbers or, per example, tensors (N, 1, 1, 1). With momentum, steps follow a sum of gradients
    of unit L1 norm, which decays by this factor each step (Dong et al. 2018).
    """
    objective, way = _objective(loss), -step if targeted else step
    adversarial, velocity = project(start, images, epsilon), torch.zeros_like(images)
    for _ in range(steps):
        with torch.enable_grad():
            inputs = adversarial.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(objective(model(inputs), labels), inputs)
        if momentum:
            norm = grad.flatten(1).abs().sum(1).clamp_min(torch.finfo(grad.dtype).tiny)
            velocity = momentum * velocity + grad / norm.view(-1, 1, 1, 1)
            grad = velocity
        adversarial = project(adversarial + way * grad.sign(), images, epsilon)
    return adversarial


def mi_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    momentum: float = 1.0,
    loss: Loss = "exact",
    targeted: bool = False,
) -> Tensor:
    """Craft by MI-FGSM (Dong et al. 2018, algorithm 1): steps of epsilon / steps, towards labels if ``targeted``."""
    return iterate_linf(
        model,
        images,
        labels,
        start=images,
        epsilon=epsilon,
        step=epsilon / steps,
        steps=steps,
        loss=loss,
        momentum=momentum,
        targeted=targeted,
    )


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step: float,
    steps: int,
    noise: Tensor,
    loss: Loss = "exact",
    targeted: bool = False,
) -> Tensor:
    """Craft by PGD (Madry et al. 2018) with restarts; of each example's ends, the one with the largest margin is kept.

    If ``targeted``, the steps go towards the labels, and the end with the smallest margin is kept.

    Args:
        model: in eval mode.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        epsilon: the radius of the ball.
        step: the size of a step.
        steps: the number of steps.
        noise: the random starts, uniform in [-1, 1], (restarts, N, C, H, W), in units of epsilon.
        loss: the loss to climb; ``hinge``, which is ``cw_margin``, gives the attack of Carlini and Wagner in this ball.
    """
    best, margin = images, torch.full((len(images),), -torch.inf, device=images.device)
    for offset in noise:
        end = iterate_linf(
            model,
            images,
            labels,
            start=images + epsilon * offset,
            epsilon=epsilon,
            step=step,
            steps=steps,
            loss=loss,
            targeted=targeted,
        )
        with torch.no_grad():
            reached = cw_margin(model(end).float(), labels)
            # A NaN counts against the model, as it does where errors are counted.
            reached = (-reached if targeted else reached).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        better = reached > margin
        best, margin = torch.where(better.view(-1, 1, 1, 1), end, best), torch.where(better, reached, margin)
    return best


def _objective(loss: Loss | Objective) -> Objective:
    if callable(loss):
        return loss
    if loss == "hinge":
        return lambda logits, labels: cw_margin(logits.float(), labels).sum()
    return lambda logits, labels: attack_loss(logits, labels, loss)
