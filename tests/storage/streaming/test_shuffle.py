import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradshard.storage.streaming.shuffle import ShuffleOrder

SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(1, 9))
SEEDS = st.integers(0, 2**31)


@given(SHAPES, SEEDS, st.integers(0, 100))
def test_every_epoch_visits_each_row_once(shape, seed, epoch):
    rows, chunk, window = shape
    order = ShuffleOrder(rows=rows, chunk=chunk, window=window, seed=seed, epoch=epoch)
    assert np.array_equal(np.sort(order.take(0, rows)), np.arange(rows))


@given(SHAPES, SEEDS, st.integers(1, 50))
def test_batches_are_the_same_whichever_were_taken_before(shape, seed, batch):
    rows, chunk, window = shape
    order = ShuffleOrder(rows=rows, chunk=chunk, window=window, seed=seed, epoch=3)
    whole = order.take(0, rows)
    starts = np.random.default_rng(seed).permutation(range(0, rows, batch))
    for start in starts:
        stop = min(start + batch, rows)
        assert np.array_equal(order.take(int(start), int(stop)), whole[start:stop])


@given(SHAPES, SEEDS)
def test_a_window_holds_the_rows_of_its_chunks_and_no_others(shape, seed):
    rows, chunk, window = shape
    order = ShuffleOrder(rows=rows, chunk=chunk, window=window, seed=seed, epoch=0)
    position = 0
    for start in range(0, len(order.chunks), window):
        chunks = order.chunks[start : start + window]
        expected = sum(min(chunk, rows - c * chunk) for c in chunks)
        taken = order.take(position, position + expected)
        assert set(taken // chunk) == set(chunks)
        position += expected
    assert position == rows


@pytest.mark.parametrize("changed", [{"seed": 2}, {"epoch": 1}])
def test_seed_and_epoch_change_the_order(changed):
    key = {"seed": 1, "epoch": 0}
    one, other = (ShuffleOrder(rows=500, chunk=20, window=5, **k).take(0, 500) for k in (key, key | changed))
    assert not np.array_equal(one, other)


def test_one_window_over_everything_is_uniform_over_positions():
    first = [ShuffleOrder(rows=8, chunk=8, window=1, seed=seed, epoch=0).take(0, 1)[0] for seed in range(4_000)]
    counts = np.bincount(first, minlength=8)
    chi_square = ((counts - 500) ** 2 / 500).sum()
    assert chi_square < 24.3  # the 0.999 quantile for 7 degrees of freedom


def test_positions_beyond_the_end_are_refused():
    with pytest.raises(IndexError, match="90:101 of an order of 100 rows"):
        ShuffleOrder(rows=100, chunk=10, window=2, seed=0, epoch=0).take(90, 101)
