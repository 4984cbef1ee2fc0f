import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradshard.storage.formats import chunking

MNIST, IMAGENET = (60_000, 196), (1_281_167, 67_052)


@given(st.integers(1, 5_000_000), st.integers(1, 1_000_000))
def test_shards_partition_the_rows_and_hold_whole_chunks(rows, row_bytes):
    cut = chunking.plan(rows, row_bytes)
    assert cut.shard % cut.chunk == 0
    edges = [cut.shard_rows(0).start, *(cut.shard_rows(s).stop for s in (0, cut.shards - 1))]
    assert edges[0] == 0
    assert edges[-1] == rows
    assert (cut.shards - 1) * cut.shard < rows <= cut.shards * cut.shard


@given(st.integers(1, 5_000_000), st.integers(1, 1_000_000))
def test_chunks_of_one_dataset_line_up_whatever_their_row_size(rows, row_bytes):
    images, signs = chunking.plan(rows, row_bytes), chunking.plan(rows, max(1, row_bytes // 4))
    assert signs.chunk % images.chunk == 0


@pytest.mark.parametrize(
    ("rows", "row_bytes", "chunk", "shard", "shards"),
    [(*MNIST, 512, 4_096, 15), (*IMAGENET, 16, 1_024, 1_252)],
    ids=["mnist", "imagenet"],
)
def test_known_datasets_get_chunks_of_a_megabyte_and_enough_shards(rows, row_bytes, chunk, shard, shards):
    cut = chunking.plan(rows, row_bytes)
    assert (cut.chunk, cut.shard, cut.shards) == (chunk, shard, shards)


@given(st.lists(st.integers(0, 500)), st.integers(1, 70))
def test_the_units_that_hold_some_rows_are_found_with_all_of_them(rows, size):
    rows = np.sort(np.array(rows, dtype=np.int64))
    found = list(chunking.group_by_chunk(rows, size))
    assert [number for number, _, _ in found] == sorted({row // size for row in rows.tolist()})
    assert np.array_equal(np.concatenate([rows[:0], *(rows[low:high] for _, low, high in found)]), rows)
    assert all((rows[low:high] // size == number).all() for number, low, high in found)


@given(st.integers(1, 10**9), st.integers(1, 1_000_000))
def test_no_shard_is_much_larger_than_64_mib(rows, row_bytes):
    cut = chunking.plan(rows, row_bytes)
    assert cut.shard == cut.chunk == 1 or cut.shard * row_bytes <= 1.5 * chunking.SHARD_BYTES
