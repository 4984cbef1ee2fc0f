"""Requests are cut into windows, and the windows' parts are the requests again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradshard.storage.streaming.shuffle import ShuffleOrder
from gradshard.storage.streaming.windows import Request, WindowPlanner, names_of

SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(1, 9))
STORES = (None, "A", "C", ("A", "C"), ("C", "D"))
SEEDS = st.integers(0, 2**31)


def put_together(windows):
    """The requests, from the parts of windows: (store, rows, rows that take signs of each of its stores)."""
    rows, signs = np.empty(0, dtype=np.int64), {}
    for window in windows:
        rows = np.concatenate([rows, window.rows])
        for name, more in window.signs.items():
            signs[name] = np.concatenate([signs.get(name, np.empty(0, dtype=np.int64)), more])
        for start, stop, store, first in window.parts:
            starts = zip(names_of(store), first, strict=True)
            yield store, rows[start:stop], [signs[name][begin : begin + stop - start] for name, begin in starts]
        begun = window.begun
        rows = rows[begun.start : begun.stop] if begun else rows[:0]
        signs = dict.fromkeys(names_of(begun.store), rows) if begun else {}


@given(SHAPES, SEEDS)
def test_whatever_is_asked_for_comes_out_of_the_windows(shape, seed):
    """In any order, again and again, nothing at all, and more at once than a window holds."""
    rows, chunk, window = shape
    generator = np.random.default_rng(seed)
    requests = [
        Request(generator.integers(0, rows, generator.integers(0, 50)), STORES[generator.integers(len(STORES))])
        for _ in range(generator.integers(0, 30))
    ]
    windows = list(WindowPlanner(rows=rows, chunk=chunk, window=window).windows(requests))
    found = list(put_together(windows))
    assert len(found) == len(requests)
    for request, (store, taken, signs) in zip(requests, found, strict=True):
        assert store == request.store
        assert np.array_equal(taken, request.rows)
        assert len(signs) == len(names_of(request.store))
        assert all(np.array_equal(one, request.rows) for one in signs)
    assert all(len(np.unique(w.rows // chunk)) <= window for w in windows)


@given(SHAPES, SEEDS, st.integers(1, 70), st.integers(1, 3))
def test_the_windows_of_orders_are_found_again(shape, seed, batch, epochs):
    rows, chunk, window = shape
    orders = [ShuffleOrder(rows=rows, chunk=chunk, window=window, seed=seed, epoch=epoch) for epoch in range(epochs)]
    requests = (Request(taken, None, order.epoch) for order in orders for taken in order.batches(batch))
    found = [set(cut.rows // chunk) for cut in WindowPlanner(rows=rows, chunk=chunk, window=window).windows(requests)]
    assert found == [
        set(order.chunks[start : start + window]) for order in orders for start in range(0, len(order.chunks), window)
    ]


@pytest.mark.parametrize("start", [0, 1, 5, 17])
def test_after_a_resumed_epoch_the_windows_are_the_orders_again(start):
    order = ShuffleOrder(rows=640, chunk=8, window=4, seed=3, epoch=0)
    requests = [Request(rows) for rows in order.batches(16, first=start)]
    windows = list(WindowPlanner(rows=640, chunk=8, window=4).windows(requests))
    assert np.array_equal(np.concatenate([w.rows for w in windows]), order.take(16 * start, 640))
    assert [len(w.rows) for w in windows[2:]] == [32] * len(windows[2:])
