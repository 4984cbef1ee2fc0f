"""Rows come to their places, whichever shards they lie in."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.chunking import Layout
from gradshard.storage.formats.gather import ReadPool, gather, plan_reads, read_tasks


class Numbered:
    """An array whose row r holds the number r, as two bytes."""

    def __init__(self, layout):
        self.layout = layout
        self.visited = []

    def take(self, shard, rows, out, positions, scratch):
        assert (rows // self.layout.shard == shard).all()
        assert (np.diff(rows) >= 0).all()
        self.visited.append(shard)
        out[positions] = np.stack([rows >> 8, rows & 255], axis=1)


@given(st.integers(1, 200_000), st.integers(1, 5000), st.integers(0, 300), st.integers(0, 99))
def test_each_shard_is_visited_once_and_each_row_comes_to_its_place(rows, shard, count, seed):
    source = Numbered(Layout(rows=rows, chunk=1, shard=shard))
    wanted = np.random.default_rng(seed).integers(0, rows, count)
    out = np.zeros((count, 2), dtype=np.uint8)
    gather(source, wanted, out)
    assert np.array_equal(out[:, 0].astype(int) * 256 + out[:, 1], wanted & 0xFFFF)
    assert source.visited == sorted(set((wanted // shard).tolist()))


def test_rows_beyond_the_first_65536_are_found():
    layout = Layout(rows=10**12, chunk=1, shard=1 << 40)
    wanted = np.array([5, 1 << 33, 65_536, 10**12 - 1, 65_535, (1 << 33) + 1, 0])
    (visit,) = plan_reads(wanted, layout)
    assert np.array_equal(visit.rows, np.sort(wanted))
    assert np.array_equal(wanted[visit.positions], visit.rows)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16])
def test_rows_may_be_narrow_integers(kind):
    layout = Layout(rows=100, chunk=1, shard=8)
    wanted = np.array([99, 3, 3, 17])
    visits, expected = plan_reads(wanted.astype(kind), layout), plan_reads(wanted, layout)
    assert [(visit.shard, *visit.rows, *visit.positions) for visit in visits] == [
        (visit.shard, *visit.rows, *visit.positions) for visit in expected
    ]


def test_the_first_error_ends_the_work_and_reaches_whoever_waits():
    done = []

    def task(number):
        def run(scratch):
            done.append(number)
            if number == 3:
                raise GradshardError("damaged")

        return run

    gatherer = ReadPool("test-gathering")
    found = gatherer.gather(task(number) for number in range(10_000))
    with pytest.raises(GradshardError, match="damaged"):
        found.wait()
    gatherer.close()
    assert len(done) < 10_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-gathering")]


def test_threads_share_the_tasks_of_several_visits():
    source = Numbered(Layout(rows=5_000, chunk=1, shard=10))
    wanted = np.random.default_rng(0).permutation(5_000)
    out = np.zeros((5_000, 2), dtype=np.uint8)
    gatherer = ReadPool("test-gathering")
    gatherer.gather(read_tasks(source, plan_reads(wanted, source.layout), out)).wait()
    gatherer.close()
    assert np.array_equal(out[:, 0].astype(int) * 256 + out[:, 1], wanted)
    assert sorted(source.visited) == list(range(500))


def test_a_pool_may_be_closed_by_a_thread_of_its_own():
    """As the garbage collector does, if it finds an abandoned reader there."""
    pool, closed = ReadPool("test-gathering"), threading.Event()

    def close(scratch):
        pool.close()
        closed.set()

    pool.gather([close])
    assert closed.wait(60)
