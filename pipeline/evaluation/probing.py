"""White-box measurements of one model, by which ``gradient_masking`` judges whether its gradient can be trusted."""

from collections.abc import Collection, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.fgsm import iterative_fgsm, rand_fgsm
from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.evaluation.error_matrix import true_label_ranks
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.loss import step_sign
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.perturb import leaves_ball, perturb
from gradshard.pipeline.types import Gradient, LabelPolicy


def probe(
    model: nn.Module,
    holdout: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    strength: AttackConfig,
    epsilons: Sequence[float],
    noise: Tensor,
    gradient: Gradient = "exact",
    policy: LabelPolicy = "true",
) -> GradientProbe:
    """Measure one model.

    Args:
        model: in eval mode.
        holdout: the model whose FGSM examples are transferred, in eval mode.
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        strength: of the attacks.
        epsilons: the sweep of FGSM's epsilon.
        noise: random signs of the images' shape.
        gradient: which gradient the attacks take.
        policy: which label the attacks are about.
    """

    def probe_rows(rows: slice) -> GradientProbe:
        return _probe_batch(
            model,
            holdout,
            images[rows],
            labels[rows],
            strength=strength,
            epsilons=epsilons,
            noise=noise[rows],
            gradient=gradient,
            policy=policy,
        )

    return reduce(add, in_microbatches(probe_rows, images, model, holdout))


def _probe_batch(
    model: nn.Module,
    holdout: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    strength: AttackConfig,
    epsilons: Sequence[float],
    noise: Tensor,
    gradient: Gradient,
    policy: LabelPolicy,
) -> GradientProbe:
    grad, chosen = input_gradient(model, images, labels, gradient=gradient, policy=policy)
    signs, epsilon = step_sign(policy) * grad.sign(), strength.epsilon
    less = epsilon - strength.alpha
    # The values overlap, so in one sweep every set of examples, clean images too, passes the model only once.
    own = others = _sweep(model, images, labels, signs, {*epsilons, epsilon, less})
    if holdout is not model:
        foreign, _ = input_gradient(holdout, images, labels, gradient=gradient, policy=policy)
        others = own | _sweep(model, images, labels, step_sign(policy) * foreign.sign(), {*epsilons} - {0.0})
    options: dict[str, Any] = {"epsilon": epsilon, "gradient": gradient, "targeted": step_sign(policy) < 0}
    examples = {
        "ifgsm": iterative_fgsm(model, images, chosen, steps=strength.steps, **options),
        "rand_fgsm": rand_fgsm(model, images, chosen, alpha=strength.alpha, noise=noise, **options),
        "noise": perturb(images, noise, epsilon),
    }
    strong = [perturb(images, signs, value) for value in (epsilon, less)]
    return GradientProbe(
        n=len(images),
        classes=_logits(model, images[:1]).shape[1],
        errors={name: _errors(model, found, labels) for name, found in examples.items()}
        | {"fgsm": own[epsilon], "fgsm_less_alpha": own[less]},
        curve={value: own[value] for value in epsilons},
        transferred={value: others[value] for value in epsilons},
        zero_gradients=int((grad.flatten(1) == 0).all(1).sum()),
        violations=sum(int(leaves_ball(found, images, epsilon).sum()) for found in [*examples.values(), *strong]),
        undefined_gradients=int((~grad.flatten(1).isfinite()).any(1).sum()),
    )


def _sweep(
    model: nn.Module, images: Tensor, labels: Tensor, signs: Tensor, epsilons: Collection[float]
) -> dict[float, int]:
    """Count the errors on images moved along the signs by each epsilon."""
    return {value: _errors(model, perturb(images, signs, value), labels) for value in epsilons}


def _errors(model: nn.Module, examples: Tensor, labels: Tensor) -> int:
    return int((true_label_ranks(_logits(model, examples), labels) > 0).sum())


def _logits(model: nn.Module, examples: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(examples)
    return logits
