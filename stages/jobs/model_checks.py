"""Checks of models on a few real images before any work, and notes about their gradients."""

import math

import numpy as np
import torch
from torch import nn

from gradshard.pipeline.gradients.model_checks import Gradients, Sample, check_frozen
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import Arithmetic
from gradshard.stages.console.progress import echo
from gradshard.storage.formats.labelled_rows import Splits

# Few, and of large images fewer: some stages check several models before they begin.
_ROWS, _PIXELS = 8, 100_000


def sample(data: Splits, device: torch.device) -> Sample:
    """Read up to eight rows spread over the training images or, if there are none, over the test images."""
    split = data.train if len(data.train) else data.test
    count = min(_ROWS, max(2, _PIXELS // math.prod(split.sample_shape)), len(split))
    rows = np.linspace(0, len(split) - 1, count).astype(np.int64)
    return Sample(
        images=to_unit_range(torch.from_numpy(split.take_images(rows)).to(device)),
        labels=torch.from_numpy(split.read_labels()[rows]).to(device),
        classes=data.classes,
    )


def check_given(
    module: nn.Module, data: Splits, device: torch.device, *, where: str, arithmetic: Arithmetic = "fp32"
) -> Gradients:
    """Check a model that is to be attacked unchanged, and note rows whose gradient is 0 or undefined.

    Raises:
        GradshardError: the model cannot be attacked.
    """
    found = check_frozen(module, sample(data, device), where=where, arithmetic=arithmetic)
    tell_gradients(found, where)
    return found


def tell_gradients(found: Gradients, where: str) -> None:
    """Print how many rows have a gradient that is 0 or undefined, if any have."""
    if found.zero:
        echo(f"{where}: the input gradient is 0 in every pixel of {found.zero} of {found.rows} images tried")
    if found.undefined:
        echo(f"{where}: the input gradient is NaN or infinite for {found.undefined} of {found.rows} images tried")
