"""The rows of the smallest pass in training, which a model's batch normalisation must take."""

import pytest

from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.data import RankSlice, StoredBatch, cut
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.stages.training.model_checks import least_rows
from gradshard.storage.streaming.reader import ReadingPlan


def adversary(objective, mode="train"):
    return Adversary(
        attack="fgsm", epsilon=0.3, alpha=0.05, clean_weight=0.5, sources=["self"], schedule="random", gradient="exact",
        policy="predicted", live_mode=mode, directions={}, objective=objective, adversarial_weight=0.3,
        epsilon_law="fixed", method="ensemble",
    )  # fmt: skip


def run(rows, batch, *, ranks=1, **options):
    return TrainingRun(
        rows, batch, 1, 0, Optimization("adam", 0.1), ReadingPlan(True, rows, 1), ranks=Rank(0, ranks), **options
    )


@pytest.mark.parametrize(
    ("rows", "batch", "ranks", "at_once", "objective", "least"),
    [
        (35, 32, 1, None, None, 3),
        (64, 32, 1, None, None, 32),
        (64, 32, 2, None, None, 16),
        # Two of three rows are replaced: those at the places 0 and 2.
        (35, 32, 1, None, "half", 2),
        (33, 32, 1, None, "half", 1),
        (35, 32, 2, None, "half", 1),
        (35, 32, 1, 2, "half", 1),
        (35, 32, 1, None, "both", 3),
        # Pieces are even: 63 rows by two are 32 pieces, one of them of a single row.
        (126, 63, 1, 2, None, 1),
        (64, 32, 1, 1, None, 1),
        (64, 32, 1, 5, None, 4),
    ],
)
def test_the_smallest_pass_is_a_piece_of_a_ranks_part(monkeypatch, rows, batch, ranks, at_once, objective, least):
    if at_once is not None:
        monkeypatch.setenv("GRADSHARD_ROWS_AT_ONCE", str(at_once))
    chosen = None if objective is None else adversary(objective)
    assert least_rows(run(rows, batch, ranks=ranks, adversary=chosen)) == least


@pytest.mark.parametrize(("rows", "most"), [(63, 2), (64, 5), (32, 7)])
def test_that_is_how_a_batch_is_cut(rows, most):
    import numpy as np

    images, numbers = np.zeros((rows, 1, 2, 2), np.uint8), np.arange(rows)
    pieces = cut(StoredBatch(numbers, images, numbers, None), RankSlice(rows, slice(0, rows)), most)
    assert min(len(piece.rows) for piece, _ in pieces) == rows // -(-rows // most)
