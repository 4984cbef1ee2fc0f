"""Bars are drawn of any error rates, also where an interval ends at the rate."""

import numpy as np
import pytest

from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report.figures import rate_bars
from gradshard.pipeline.report.over_seeds.seed_errors import ImageErrors, SeedErrors
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell
from gradshard.pipeline.report.table import Table


def always(wrong, images):
    """The cell of two seeds that err on all images, or on none."""
    rates = {seed: ErrorRate(wrong * images, images) for seed in (1, 2)}
    found = ImageErrors(np.arange(images), np.full((2, images), bool(wrong)))
    return TrainingCell(SeedErrors(rates, found), expected=2)


@pytest.mark.parametrize("wrong", [0, 1])
def test_bars_of_seeds_that_all_err_never_or_always_are_drawn(wrong):
    cells = [always(wrong, images) for images in range(2, 200)]
    ends = np.array([cell.interval for cell in cells])
    assert (ends[:, 0] <= wrong).all()
    assert (ends[:, 1] >= wrong).all()
    tightest = [cells[int(np.argmin(np.abs(ends[:, wrong] - wrong)))], always(wrong, 1000)]
    table = Table("defences", "Defences", "model", ["Clean", "FGSM"], [("A", tightest)])
    assert rate_bars(table).startswith("<svg")
