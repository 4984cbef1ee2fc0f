"""Models checked on a few real images before any work, and what is worth telling of them."""

import math

import numpy as np
import torch
from torch import nn

from gradshard.pipeline.gradients.signs import BATCH_PIXELS, to_unit_range
from gradshard.pipeline.models.checks import Gradients, Sample, check_frozen, check_trainable
from gradshard.pipeline.models.precision import Arithmetic
from gradshard.pipeline.training.config import TrainingRun
from gradshard.stages.support.progress import say
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Dataset

_ROWS = 8


def sample(data: Dataset, device: torch.device) -> Sample:
    """Read up to eight rows from everywhere in the training images, or the test images where there are no others."""
    split = data.train if len(data.train) else data.test
    count = min(_ROWS, max(2, BATCH_PIXELS // math.prod(split.sample_shape)), len(split))
    rows = np.linspace(0, len(split) - 1, count).astype(np.int64)
    return Sample(
        images=to_unit_range(torch.from_numpy(split.take_images(rows)).to(device)),
        labels=torch.from_numpy(split.read_labels()[rows]).to(device),
        classes=data.classes,
    )


def check_given(
    module: nn.Module, data: Dataset, device: torch.device, *, where: str, arithmetic: Arithmetic = "fp32"
) -> Gradients:
    """Check a model that is attacked as it is, and tell of a gradient that shows nothing.

    Raises:
        GradshardError: it is not one that can be.
    """
    found = check_frozen(module, sample(data, device), where=where, arithmetic=arithmetic)
    _tell(found, where)
    return found


def check_before_training(
    module: nn.Module, data: Dataset, run: TrainingRun, device: torch.device, *, where: str, arithmetic: Arithmetic
) -> None:
    """Check a model in both modes, in the arithmetic it will be trained in; tell which of its weights stay frozen.

    Afterwards it is on ``device``.

    Raises:
        GradshardError: it is not one that can be trained so.
    """
    module.to(device)
    some = sample(data, device)
    found = check_frozen(module, some, where=where, arithmetic=arithmetic)
    if found.undefined and run.adversary is not None:
        raise GradshardError(
            f"{where}: the input gradient is NaN or infinite for {found.undefined} of {found.rows} images, so it has "
            "no sign to perturb them by: look for a norm, root or logarithm at 0 in its code"
        )
    check_trainable(module, some, where=where, arithmetic=arithmetic, least_rows=_least_rows(run))
    if run.ranks.first:
        _tell(found, where)
        frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
        if frozen:
            say(f"{where}: {len(frozen)} tensors stay as they are, such as {frozen[0]}: they require no gradient")


def _least_rows(run: TrainingRun) -> int:
    """The rows of the smallest batch that passes in train mode: a rank's part of the last one of an epoch."""
    rows = run.batch_rows(run.steps_per_epoch - 1) // run.ranks.size
    adversary = run.adversary
    # Clean and perturbed images pass together then.
    together = adversary is not None and adversary.objective == "both" and adversary.live_mode == "eval"
    return 2 * rows if together else rows


def _tell(found: Gradients, where: str) -> None:
    if found.zero:
        say(f"{where}: the input gradient is 0 in every pixel of {found.zero} of {found.rows} images tried")
    if found.undefined:
        say(f"{where}: the input gradient is NaN or infinite for {found.undefined} of {found.rows} images tried")
