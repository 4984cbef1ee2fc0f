"""The losses that attacks ascend (section 2.2), and the labels that they are taken for."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from gradshard.pipeline.types import Gradient, LabelPolicy, StoreLabel
from gradshard.storage.errors import GradshardError

_NO_LABEL = torch.iinfo(torch.int64).min


def logit_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how far the other classes are ahead: u = logsumexp over j != t of z_j, minus z_t; float (N,).

    The cross-entropy is J = log(1 + exp(u)), so its gradient is sigmoid(u) times that of u and has the same sign; but
    u does not saturate, while softmax cross-entropy computes p_t - 1, which cancels on confident examples.
    """
    column = labels.unsqueeze(1)
    others = logits.scatter(1, column, -torch.inf)
    return others.logsumexp(1) - logits.gather(1, column).squeeze(1)


def attack_loss(logits: Tensor, labels: Tensor, gradient: Gradient) -> Tensor:
    """Compute the loss that the attack ascends, summed over the examples so that each one's gradient is its own.

    Raises:
        GradshardError: there is no such gradient.
    """
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    if gradient == "exact":
        return logit_margin(logits, labels).sum()
    if gradient == "cross_entropy":
        # By default torch would pass over the label -100, for which the gradient would be 0.
        return functional.cross_entropy(logits, labels, reduction="sum", ignore_index=_NO_LABEL)
    raise GradshardError(f"gradient is {gradient}: choose {' or '.join(get_args(Gradient))}")


def attack_labels(logits: Tensor, labels: Tensor | None, policy: LabelPolicy) -> Tensor:
    """Return the labels an attack uses, int64 (N,): the model's prediction, the true label, or the least likely class.

    The least likely class is the arg min over all classes (section 2.2). ``labels`` is needed for ``true`` alone.

    Raises:
        GradshardError: there is no such policy, or no label.
    """
    if policy == "predicted":
        return logits.argmax(1)
    if policy == "least_likely":
        return logits.argmin(1)
    if policy != "true":
        raise GradshardError(f"policy is {policy}: choose {' or '.join(get_args(LabelPolicy))}")
    if labels is None:
        raise GradshardError("there are no labels, which the policy true needs: give them, or policy predicted")
    return labels


def step_sign(policy: StoreLabel) -> Literal[1, -1]:
    """Return the sign of a step along the gradient: away from a label (+1), or towards a target (-1)."""
    return -1 if policy in ("least_likely", "random") else 1
