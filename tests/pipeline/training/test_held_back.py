"""Rows held back from training, and the epoch that is judged best on them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.held_back import HeldBackErrors, best, split_rows
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.storage.streaming.reader import ReadingPlan


@given(st.integers(2, 200), st.integers(1, 199), st.integers(0, 2**31))
def test_every_row_is_trained_on_or_held_back(rows, count, seed):
    kept, held = split_rows(rows, count, seed=seed)
    assert len(held) == min(count, rows)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(rows))
    assert np.array_equal(held, split_rows(rows, count, seed=seed)[1])


def test_the_seed_draws_the_rows():
    assert not np.array_equal(split_rows(200, 20, seed=0)[1], split_rows(200, 20, seed=1)[1])


def test_a_run_asks_for_the_kept_rows_alone_each_once_an_epoch():
    kept, held = split_rows(200, 30, seed=3)
    for reading in (ReadingPlan(True, 200, 1), ReadingPlan(False, 16, 3)):
        run = TrainingRun(len(kept), 32, 2, 5, Optimization("adam", 0.1), reading, kept=kept)
        asked = np.concatenate([request.rows for request in run.requests(0)])
        assert np.array_equal(np.sort(asked), np.repeat(kept, 2))
        assert not set(asked) & set(held)


def test_the_first_epoch_of_least_transfer_error_is_best():
    found = [HeldBackErrors(1, 0.1, 0.5, 0.9), HeldBackErrors(2, 0.1, 0.3, 1.0), HeldBackErrors(3, 0.0, 0.3, 0.8)]
    assert best(found).epoch == 2


def test_without_stores_the_own_attack_judges():
    found = [HeldBackErrors(1, 0.1, None, 0.9), HeldBackErrors(2, 0.2, None, 0.7)]
    assert best(found).epoch == 2
    assert found[0].rates == {"clean_error": 0.1, "pgd_error": 0.9}
