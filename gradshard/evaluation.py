"""The error of any models under any attacks from any sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradshard.arguments import (
    attack_config,
    check_eval_mode,
    check_gradients,
    check_labels,
    check_listed,
    check_named,
    check_pixels,
    check_words,
    count_classes,
)
from gradshard.examination import examine as examine
from gradshard.pipeline.attacks.crafting import attacks_named, check_attacks
from gradshard.pipeline.attacks.registry import ATTACKS
from gradshard.pipeline.evaluation.error_matrix import (
    BLOCK,
    Case,
    block_draws,
    evaluate_block,
    plan_cases,
    plan_craftings,
)
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.gradients.model_checks import Sample, check_differentiable
from gradshard.pipeline.gradients.watching import Watched
from gradshard.pipeline.models.precision import settings_kept
from gradshard.pipeline.types import CLEAN, EvaluationLabel, Gradient
from gradshard.storage.errors import GradshardError

# Images that a source is tried on before it is attacked.
_TRIED = 8


@dataclass(frozen=True)
class EvaluationResult:
    """One cell of an error matrix: a target, the source that crafted, and the attack; ``correct`` is bool (N,).

    Clean images have the attack ``clean`` and no source.
    """

    target: str
    source: str
    attack: str
    correct: npt.NDArray[np.bool_]

    @property
    def error(self) -> ErrorRate:
        """The error rate, with its intervals."""
        return ErrorRate(int((~self.correct).sum()), len(self.correct))


@settings_kept()
def evaluate(
    targets: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    attacks: Sequence[str],
    epsilon: float,
    sources: Mapping[str, nn.Module] | None = None,
    alpha: float | None = None,
    steps: int | None = None,
    restarts: int = 1,
    gradient: Gradient = "exact",
    label: EvaluationLabel = "true",
    arguments: Mapping[str, Mapping[str, object]] | None = None,
    seed: int = 0,
) -> list[EvaluationResult]:
    """Attack every target from every source, as the stage `evaluate` does.

    Args:
        targets: modules by name, in eval mode, all on one device; they map images in [0, 1] to logits.
        images: float (N, C, H, W) in [0, 1], on any device.
        labels: int64 (N,).
        attacks: their names: fgsm, ifgsm, rand_fgsm, mifgsm, pgd, cw, autoattack; torchattacks:NAME, foolbox:NAME and
            art:NAME; or package.module:function.
        epsilon: how far a pixel may move, in units of pixels in [0, 1].
        sources: the models that craft; by default the targets. A source with a target's name is that target.
        alpha: as for each attack: see ``fgsm``, also for the next four.
        steps: as for each attack.
        restarts: as for each attack.
        gradient: as for each attack.
        label: as for each attack.
        arguments: keyword arguments of attacks from elsewhere, by the attack's name.
        seed: the seed of all random draws; the noise is the same for all sources.

    Returns:
        One result per target on clean images, then one for each attack, source and target.

    Raises:
        GradshardError: a model is in training mode, gives no logits for the images, changes them, or is a source whose
            gradient is missing, NaN or infinite; the images are not pixels, the labels do not fit the images, an attack
            cannot run here, or another argument is not valid.
    """
    check_named(targets=targets, sources=sources or {})
    check_listed(attacks=attacks)
    models = {**(sources or {}), **targets}
    if not targets:
        raise GradshardError("there are no targets: name one model at least")
    check_eval_mode(models)
    table = attacks_named(attacks, arguments)
    check_pixels(images)
    check_words(gradient, label)
    tensors = (parameter for model in models.values() for parameter in model.parameters())
    device = next((parameter.device for parameter in tensors), images.device)
    first = images[:1].detach().to(device)
    classes = min(count_classes(model, first, where=name) for name, model in models.items())
    check_labels(labels, images, classes=classes)
    check_attacks(attacks, classes=classes, attacks=table)
    config = attack_config(epsilon=epsilon, alpha=alpha, steps=steps, restarts=restarts)
    crafters = list(sources if sources is not None else targets)
    if any(name in ATTACKS for name in attacks):  # others may need no gradient
        sample = Sample(images[:_TRIED].detach().to(device), labels[:_TRIED].to(device), classes)
        for name in crafters:
            check_differentiable(models[name], sample, where=name)
    planned = plan_cases(
        plan_craftings(dict.fromkeys(attacks, crafters), [gradient], config, label=label, attacks=table), list(targets)
    )
    ranks = []
    for block, start in enumerate(range(0, len(images), BLOCK)):
        some, true = images[start : start + BLOCK].to(device), labels[start : start + BLOCK].to(device)
        draws = block_draws(some.shape, restarts, seed=seed, block=block, device=device)
        watched = {name: Watched(model) for name, model in models.items()}
        ranks.append(evaluate_block(watched, planned, some, true, draws=draws, attacks=table))
        check_gradients(watched)
    correct = (torch.cat(ranks, dim=1) == 0).numpy()
    return [_result(case, right) for case, right in zip(planned, correct, strict=True)]


def _result(case: Case, correct: npt.NDArray[np.bool_]) -> EvaluationResult:
    if case.crafting is None:
        return EvaluationResult(case.target, "", CLEAN, correct)
    return EvaluationResult(case.target, case.crafting.source, case.crafting.attack, correct)
