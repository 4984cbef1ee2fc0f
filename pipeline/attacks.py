"""The attacks of section 2.2 and section 4, and the signed gradients they are made of.

Images are float tensors (N, C, H, W) in [0, 1]; epsilon and alpha are in the same units; every adversarial example is
clipped to [0, 1]. A model is used in the mode it is in, and its parameters' ``grad`` stays untouched.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.vocabulary import Gradient, LabelPolicy


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the other classes are ahead: u = logsumexp over j != t of z_j, minus z_t; float (N,).

    The cross-entropy is J = log(1 + exp(u)), so its gradient is sigmoid(u) times that of u and has the same sign; but
    u does not saturate, while softmax cross-entropy computes p_t - 1, which cancels on confident examples.
    """
    column = labels.unsqueeze(1)
    others = logits.scatter(1, column, -torch.inf)
    return others.logsumexp(1) - logits.gather(1, column).squeeze(1)


def attack_loss(logits: Tensor, labels: Tensor, gradient: Gradient) -> Tensor:
    """What the attack ascends, summed over the examples so that each one's gradient is its own."""
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    if gradient == "exact":
        return margin(logits, labels).sum()
    return functional.cross_entropy(logits, labels, reduction="sum")


def choose_labels(logits: Tensor, labels: Tensor | None, policy: LabelPolicy) -> Tensor:
    """The labels an attack uses, int64 (N,): the model's prediction, the true label, or the least likely class.

    The least likely class is the arg min over all classes (section 2.2). ``labels`` is needed for ``true`` alone.
    """
    if policy == "predicted":
        return logits.argmax(1)
    if policy == "least_likely":
        return logits.argmin(1)
    if labels is None:
        raise ValueError("policy 'true' needs labels")
    return labels


def step_direction(policy: LabelPolicy) -> Literal[1, -1]:
    """Which way an attack steps along the signed gradient: away from a label (+1), or towards the least likely (-1)."""
    return -1 if policy == "least_likely" else 1


def input_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    *,
    gradient: Gradient = "exact",
    policy: LabelPolicy = "true",
) -> tuple[Tensor, Tensor]:
    """The gradient of the attack's loss with respect to the images, and the labels it was taken for.

    Args:
        model: maps images to logits (N, classes).
        images: (N, C, H, W).
        labels: true labels int64 (N,), needed for the policy ``true``.
        gradient: ``exact``: of the margin u, whose sign is the cross-entropy's exactly; ``cross_entropy``: of the
            softmax cross-entropy as the paper's code computed it.
        policy: whose labels the loss is taken for.

    Returns:
        Gradient (N, C, H, W) in the dtype of the images, and labels int64 (N,).
    """
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
    """What ``input_gradient`` gives, from a forward pass that was made already.

    Args:
        logits: what the model gave for ``inputs``, with its graph.
        inputs: the images of that pass, (N, C, H, W), which require a gradient.
        labels: as for ``input_gradient``.
        gradient: as for ``input_gradient``.
        policy: as for ``input_gradient``.
        keep_graph: whether a later backward pass goes through the same graph.
    """
    chosen = choose_labels(logits, labels, policy)
    (slope,) = torch.autograd.grad(attack_loss(logits, chosen, gradient), inputs, retain_graph=keep_graph)
    return slope, chosen


def perturb(images: Tensor, signs: Tensor, epsilon: float | Tensor) -> Tensor:
    """clip(x + epsilon * sign, 0, 1). Epsilon is a number or, per example, a tensor (N, 1, 1, 1)."""
    return (images + epsilon * signs).clamp_(0, 1)


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor,
    gradient: Gradient = "exact",
    towards: bool = False,
) -> Tensor:
    """Fast gradient sign method (section 2.2): one step of epsilon away from, or ``towards``, the labels."""
    slope, _ = input_gradient(model, images, labels, gradient=gradient)
    signs = slope.sign()
    return perturb(images, -signs if towards else signs, epsilon)


def iterative_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    gradient: Gradient = "exact",
    towards: bool = False,
) -> Tensor:
    """I-FGSM (section 2.2): ``steps`` times FGSM with epsilon / steps, clipped to [0, 1] each time."""
    adversarial = images
    for _ in range(steps):
        adversarial = fgsm(model, adversarial, labels, epsilon=epsilon / steps, gradient=gradient, towards=towards)
    return adversarial


def rand_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    alpha: float,
    noise: Tensor,
    gradient: Gradient = "exact",
    towards: bool = False,
) -> Tensor:
    """RAND+FGSM (section 4): a random step of alpha, then FGSM with epsilon - alpha; epsilon is the total.

    ``noise`` holds the signs of the random step, -1 or +1, in the images' shape; see ``random_signs``.
    """
    moved = perturb(images, noise, alpha)
    return fgsm(model, moved, labels, epsilon=epsilon - alpha, gradient=gradient, towards=towards)


def random_signs(shape: torch.Size, *, generator: torch.Generator) -> Tensor:
    """The signs of standard normal draws: -1 or +1 with equal chance, float32, on the generator's device."""
    bits = torch.randint(0, 2, shape, generator=generator, device=generator.device, dtype=torch.int8)
    return (2 * bits - 1).float()
