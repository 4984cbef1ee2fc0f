"""Checks of a model before it is trained: in train and eval mode, with the smallest batch that it will see."""

import math

import torch
from torch import nn

from gradshard.pipeline.gradients.model_checks import check_frozen, check_trainable
from gradshard.pipeline.models.precision import Arithmetic
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.methods.registry import DEFAULT_METHOD
from gradshard.pipeline.types import SELF
from gradshard.stages.console.progress import echo
from gradshard.stages.jobs.model_checks import sample, tell_gradients
from gradshard.stages.machines.devices import rows_at_once
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Dataset


def check_before_training(
    module: nn.Module, data: Dataset, run: TrainingRun, device: torch.device, *, where: str, arithmetic: Arithmetic
) -> None:
    """Check a model in train and eval mode, in the arithmetic of its training, and report weights that stay frozen.

    The model is moved to ``device``.

    Raises:
        GradshardError: the model cannot be trained in this way.
    """
    module.to(device)
    some = sample(data, device)
    found = check_frozen(module, some, where=where, arithmetic=arithmetic)
    if found.undefined and run.adversary is not None:
        raise GradshardError(
            f"{where}: the input gradient is NaN or infinite for {found.undefined} of {found.rows} images, so it has "
            "no sign to perturb them by: look for a norm, root or logarithm at 0 in its code"
        )
    check_trainable(module, some, where=where, arithmetic=arithmetic, least_rows=least_rows(run))
    if run.ranks.first:
        tell_gradients(found, where)
        frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
        if frozen:
            echo(f"{where}: {len(frozen)} tensors stay as they are, such as {frozen[0]}: they require no gradient")


def least_rows(run: TrainingRun) -> int:
    """Return the rows of the smallest pass in train mode: a piece of a rank's part of a batch."""
    at_once, ranks = rows_at_once(), run.ranks.size
    parts = {run.batch_rows(step) // ranks for step in (0, run.steps_per_epoch - 1)}
    rows = min(part if at_once is None else part // math.ceil(part / at_once) for part in parts)
    adversary = run.adversary
    if adversary is None or adversary.method != DEFAULT_METHOD:
        return rows
    if adversary.objective == "both":
        # Clean and perturbed images may pass together.
        return 2 * rows if adversary.live_mode == "eval" else rows
    if SELF not in adversary.sources or adversary.live_mode != "train":
        return rows
    # The rows at even places of a batch are crafted apart; a rank's part or a piece may begin at an odd place.
    whole = ranks == 1 and (at_once is None or at_once >= run.batch)
    return (rows + 1) // 2 if whole else max(rows // 2, 1)
