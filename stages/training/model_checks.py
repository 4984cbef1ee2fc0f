"""Checks of a model before it is trained: in train and eval mode, with the smallest batch that it will see."""

import torch
from torch import nn

from gradshard.pipeline.gradients.model_checks import check_frozen, check_trainable
from gradshard.pipeline.models.precision import Arithmetic
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.methods.registry import DEFAULT_METHOD
from gradshard.pipeline.types import SELF
from gradshard.stages.console.progress import echo
from gradshard.stages.work.model_checks import sample, tell_gradients
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
    """Return the rows of the smallest batch that passes in train mode: a rank's part of an epoch's last batch."""
    rows = run.batch_rows(run.steps_per_epoch - 1) // run.ranks.size
    adversary = run.adversary
    # With this objective clean and perturbed images may pass together.
    both = adversary is not None and adversary.method == DEFAULT_METHOD and adversary.objective == "both"
    together = adversary is not None and both and adversary.live_mode == "eval"
    if adversary is not None and adversary.method == DEFAULT_METHOD and adversary.objective == "half":
        crafts_apart = SELF in adversary.sources and adversary.live_mode == "train"
        return max(rows // 2, 1) if crafts_apart else rows
    return 2 * rows if together else rows
