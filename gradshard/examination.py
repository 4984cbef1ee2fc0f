"""An examination of one model under attacks of all kinds, which shows whether its gradient can be trusted."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from gradshard.arguments import (
    attack_config,
    check_eval_mode,
    check_labels,
    check_listed,
    check_named,
    check_pixels,
    check_words,
    count_classes,
)
from gradshard.pipeline.attacks.crafting import check_attacks
from gradshard.pipeline.evaluation.examination import (
    EXAMINED_TOGETHER,
    QUICK_ATTACKS,
    QUICK_TRANSFERRED,
    Examination,
    ExaminationPlan,
    conclude,
    examine_block,
)
from gradshard.pipeline.gradients.model_checks import Sample, check_frozen
from gradshard.pipeline.models.precision import settings_kept
from gradshard.pipeline.types import SELF, Gradient
from gradshard.storage.errors import GradshardError

_TRIED = 8


@settings_kept()
def examine(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    sources: Mapping[str, nn.Module] | None = None,
    attacks: Sequence[str] = QUICK_ATTACKS,
    transferred: Sequence[str] = QUICK_TRANSFERRED,
    alpha: float | None = None,
    steps: int | None = None,
    restarts: int = 1,
    gradient: Gradient = "exact",
    arguments: Mapping[str, Mapping[str, object]] | None = None,
    seed: int = 0,
) -> Examination:
    """Attack a model by its own gradient and by transfer, and raise the flags of a masked gradient.

    Args:
        model: in eval mode; it maps images in [0, 1] to logits.
        images: float (N, C, H, W) in [0, 1], on any device.
        labels: int64 (N,).
        epsilon: how far a pixel may move, in units of pixels in [0, 1].
        sources: modules by name, in eval mode, whose examples are transferred.
        attacks: the attacks by the model's own gradient: fgsm, ifgsm, rand_fgsm, mifgsm, pgd, cw, autoattack;
            torchattacks:NAME, foolbox:NAME and art:NAME; or package.module:function.
        transferred: the attacks that the sources craft.
        alpha: as for each attack: see ``fgsm``, also for the next three.
        steps: as for each attack.
        restarts: as for each attack.
        gradient: as for each attack.
        arguments: keyword arguments of attacks from elsewhere, by the attack's name.
        seed: the seed of all random draws.

    Returns:
        ``flags``, ``masked``, ``results`` (an error with its intervals per attack and source), ``worst_case`` over all
        of them per example, and ``probe``, the error as a function of epsilon.

    Raises:
        GradshardError: the images are not pixels, the labels do not fit the images, an attack cannot run here, a model
            cannot be attacked as it is, or another argument is not valid; the message says why.
    """
    check_named(sources=sources or {})
    check_listed(attacks=attacks, transferred=transferred)
    models = {**(sources or {}), SELF: model}
    if SELF in (sources or {}):
        raise GradshardError(f"a source is named {SELF}, as the examined model is: give it another name")
    check_eval_mode(models)
    strength = attack_config(epsilon=epsilon, alpha=alpha, steps=steps, restarts=restarts)
    plan = ExaminationPlan(
        strength, tuple(attacks), tuple(transferred), tuple(sources or ()), gradient, seed, arguments or {}
    )
    table = plan.table
    check_pixels(images)
    check_words(gradient)
    device = next((parameter.device for parameter in model.parameters()), images.device)
    classes = count_classes(model, images[:1].to(device))
    check_labels(labels, images, classes=classes)
    check_attacks((*attacks, *transferred), classes=classes, attacks=table)
    tried = Sample(images[:_TRIED].to(device), labels[:_TRIED].to(device), classes)
    for name, module in models.items():
        check_frozen(module, tried, where="the model" if name == SELF else name)
    starts = range(0, len(images), EXAMINED_TOGETHER)
    parts = [slice(start, start + EXAMINED_TOGETHER) for start in starts]
    return conclude(
        plan,
        [
            examine_block(models, images[part].to(device), labels[part].to(device), plan, block=block)
            for block, part in enumerate(parts)
        ],
    )
