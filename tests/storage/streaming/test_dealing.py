"""Rows that stream are dealt to batches by whole chunks, whoever reads which part of a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradshard.storage.streaming.dealing import DealtBatches
from gradshard.storage.streaming.shuffle import ShuffleOrder
from gradshard.storage.streaming.windows import WindowPlanner

SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(1, 9), st.integers(1, 70))
SEEDS = st.integers(0, 2**31)
STORES = (None, "A", "C", "D")


def turns(batch):
    return STORES[np.random.default_rng(batch).integers(4)]


def dealt(shape, seed, *, left_out=None, store_of=turns, epoch=0):
    rows, chunk, window, size = shape
    order = ShuffleOrder(rows=rows, chunk=chunk, window=window, seed=seed, epoch=epoch)
    return DealtBatches(order, size, store_of, left_out)


def part(request, rank, ranks):
    rows = len(request.rows)
    return request.part(slice(rank * rows // ranks, (rank + 1) * rows // ranks))


def chunks_read(batches, chunk, window, ranks):
    """Count the chunks that all ranks read for an epoch's images, and for each store's signs."""
    read = {}
    for rank in range(ranks):
        planner = WindowPlanner(rows=batches.order.rows, chunk=chunk, window=window)
        for cut in planner.windows(part(request, rank, ranks) for request in batches.requests()):
            for name, rows in {"images": cut.rows, **cut.signs}.items():
                read[name] = read.get(name, 0) + len(np.unique(rows // chunk))
    return read


@given(SHAPES, SEEDS, st.integers(0, 4))
def test_an_epoch_has_each_row_once_but_for_those_left_out(shape, seed, epoch):
    rows, size = shape[0], shape[3]
    held = np.flatnonzero(np.random.default_rng(seed).random(rows) < 0.2)
    held = held[: rows - 1]
    requests = list(dealt(shape, seed, left_out=held, epoch=epoch).requests())
    taken = np.concatenate([request.rows for request in requests])
    assert np.array_equal(np.sort(taken), np.setdiff1d(np.arange(rows), held))
    assert {len(request.rows) for request in requests[:-1]} <= {size}
    assert [request.store for request in requests] == [turns(batch) for batch in range(len(requests))]


@given(SHAPES, SEEDS, st.integers(0, 50))
def test_a_resumed_epoch_goes_on_with_the_same_batches(shape, seed, first):
    whole, rest = dealt(shape, seed).requests(), dealt(shape, seed).requests(first=first)
    for one, other in zip(list(whole)[first:], rest, strict=True):
        assert np.array_equal(one.rows, other.rows)
        assert (one.store, list(one.windows)) == (other.store, list(other.windows))


@given(SHAPES, SEEDS)
def test_rows_are_told_with_the_window_of_the_order_that_holds_their_chunk(shape, seed):
    batches = dealt(shape, seed)
    window_of = np.empty(len(batches.order.chunks), dtype=np.int64)
    window_of[batches.order.chunks] = np.arange(len(window_of)) // batches.order.window
    for request in batches.requests():
        assert np.array_equal(request.windows, window_of[request.rows // batches.order.chunk])


@pytest.mark.parametrize("changed", [{"seed": 2}, {"epoch": 1}])
def test_seed_and_epoch_change_the_batches(changed):
    key = {"seed": 1, "epoch": 0}
    one, other = (next(dealt((500, 20, 5, 32), **k).requests()).rows for k in (key, key | changed))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_together_read_each_chunk_little_more_than_once(ranks):
    chunk, window, size = 16, 285, 64
    batches = dealt((3 * window * chunk, chunk, window, size), 0)
    read = chunks_read(batches, chunk, window, ranks)
    own = {None: 0, "A": 0, "C": 0, "D": 0}
    for request in batches.requests():
        own[request.store] += len(request.rows) / chunk
    # In each window a border between two ranks or two stores cuts a chunk, at most.
    assert read["images"] <= 3 * window + 3 * len(STORES) * ranks
    for name in ("A", "C", "D"):
        assert own[name] <= read[name] <= own[name] + 3 * (ranks + 1)


@given(SHAPES, SEEDS, st.integers(1, 9))
def test_a_rank_gathers_each_window_of_the_order_at_once(shape, seed, ranks):
    rows, chunk, window, size = shape
    batches = dealt(shape, seed)
    if min(size, (rows - 1) % size + 1) < ranks:
        return
    for rank in range(ranks):
        requests = [part(request, rank, ranks) for request in batches.requests()]
        expected = np.concatenate([request.windows for request in requests])
        planned = list(WindowPlanner(rows=rows, chunk=chunk, window=window).windows(iter(requests)))
        assert [len(cut.rows) for cut in planned] == np.unique(expected, return_counts=True)[1].tolist()
        assert np.array_equal(np.concatenate([c.rows for c in planned]), np.concatenate([r.rows for r in requests]))


def test_two_stores_share_chunks_where_a_window_has_few_batches_of_each():
    chunk, window = 16, 285
    batches = dealt((3 * window * chunk, chunk, window, 800), 0)
    read, drawn = chunks_read(batches, chunk, window, 1), batches.order.batches(800)
    assert read["images"] == 3 * window
    stored = sum(len(request.rows) for request in batches.requests() if request.store) / chunk
    assert 1.2 * stored < sum(read[name] for name in "ACD") < 2 * stored + 3 * len(STORES)
    assert neighbours((request.rows for request in batches.requests()), 16) < 2.5 * neighbours(drawn, 16)


def neighbours(requests, chunk):
    """The mean, over rows, of how many others in its batch are of its chunk."""
    pairs = rows = 0
    for taken in requests:
        counts = np.unique(taken // chunk, return_counts=True)[1]
        pairs, rows = pairs + (counts * (counts - 1)).sum(), rows + len(taken)
    return pairs / rows


def test_a_batch_holds_fewer_neighbours_than_one_drawn_from_the_window_at_random():
    batches = dealt((20 * 285 * 16, 16, 285, 64), 0)
    drawn = neighbours(batches.order.batches(64), 16)
    assert neighbours((request.rows for request in batches.requests()), 16) < drawn / 3


def test_places_of_a_batch_are_uniform_over_the_rows_of_a_window():
    """Of one window of 8 rows in 2 chunks and 2 batches, each row comes first equally often."""
    first = [next(dealt((8, 4, 2, 4), seed, store_of=lambda _: None).requests()).rows[0] for seed in range(4_000)]
    counts = np.bincount(first, minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 24.3  # the 0.999 quantile for 7 degrees of freedom
