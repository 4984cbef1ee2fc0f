"""Rows held back from training, and the epoch that is judged best on them."""

import numpy as np
import pytest

from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.held_back import HeldBackErrors, best, catastrophic_overfitting, draw_rows
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.storage.streaming.reader import ReadingPlan
from gradshard.storage.streaming.windows import WindowPlanner


def test_the_seed_draws_the_rows():
    one, again, other = (draw_rows(200, 20, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len(np.unique(one)) == 20


@pytest.mark.parametrize("reading", [ReadingPlan(True, 200, 1), ReadingPlan(False, 16, 3)], ids=["resident", "windows"])
def test_a_run_asks_for_all_other_rows_each_once_an_epoch(reading):
    held = draw_rows(200, 30, seed=3)
    run = TrainingRun(170, 32, 2, 5, Optimization("adam", 0.1), reading, held_back=held)
    requests = list(run.requests(0))
    assert [len(request.rows) for request in requests] == [32, 32, 32, 32, 32, 10] * 2
    asked = np.concatenate([request.rows for request in requests])
    assert np.array_equal(np.sort(asked), np.repeat(np.setdiff1d(np.arange(200), held), 2))
    resumed = list(run.requests(8))
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(requests[8:], resumed, strict=True))


def test_with_rows_held_back_a_chunk_is_still_read_once_an_epoch():
    held = draw_rows(200, 30, seed=3)
    run = TrainingRun(170, 32, 2, 5, Optimization("adam", 0.1), ReadingPlan(False, 16, 3), held_back=held)
    windows = WindowPlanner(rows=200, chunk=16, window=3).windows(run.requests(0))
    assert sum(len(np.unique(window.rows // 16)) for window in windows) == 2 * 13


def test_the_first_epoch_of_least_transfer_error_is_best():
    found = [HeldBackErrors(1, 0.1, 0.5, 0.9), HeldBackErrors(2, 0.1, 0.3, 1.0), HeldBackErrors(3, 0.0, 0.3, 0.8)]
    assert best(found).epoch == 2


def test_without_stores_the_own_attack_judges():
    found = [HeldBackErrors(1, 0.1, None, 0.9), HeldBackErrors(2, 0.2, None, 0.7)]
    assert best(found).epoch == 2
    assert found[0].rates == {"clean_error": 0.1, "pgd_error": 0.9}


def epochs(*errors, clean=0.1):
    return [HeldBackErrors(number, clean, None, error) for number, error in enumerate(errors, start=1)]


def test_a_jump_of_own_pgd_error_from_below_70_to_above_95_percent_is_catastrophic_overfitting():
    assert catastrophic_overfitting(epochs(0.9, 0.6, 0.65, 0.96, 0.5, 0.97)) == (4, 0.96, 0.6)


@pytest.mark.parametrize(
    "found",
    [epochs(0.99, 0.8, 0.97), epochs(0.6, 0.65, 0.94), epochs(0.96, 0.6), epochs(0.6, 1.0, clean=0.9), epochs(0.6)],
    ids=["never robust", "it stays below", "before it learnt", "wrong on clean images too", "one epoch"],
)
def test_nothing_else_is(found):
    assert catastrophic_overfitting(found) is None
