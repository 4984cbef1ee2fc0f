"""Shards written a chunk at a time are the files that zarr-python writes, and are there whole or not at all."""

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec

from gradshard.storage.formats.chunking import Layout, split_slice
from gradshard.storage.formats.shard_writer import write_plain_shard

ROWS = {"whole shards": (64, 4, 16), "a short last chunk": (61, 4, 16), "chunks without rows": (53, 4, 16)}


@pytest.mark.parametrize(("rows", "chunk", "shard"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("sample_shape", [(1, 5, 7), (3, 40, 40)])
def test_they_are_the_bytes_that_zarr_writes(tmp_path, rows, chunk, shard, sample_shape):
    images = np.random.default_rng(rows).integers(0, 256, (rows, *sample_shape), dtype=np.uint8)
    images[: 2 * chunk] = 0  # like the fill value, and yet to be written
    array = zarr.create_array(
        tmp_path / "zarr",
        shape=images.shape,
        dtype="uint8",
        chunks=(chunk, *sample_shape),
        shards=(shard, *sample_shape),
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    cut = Layout(rows, chunk, shard)
    for number in range(cut.shards):
        array[cut.shard_rows(number)] = images[cut.shard_rows(number)]
        ours = tmp_path / "ours" / str(number)
        write_plain_shard(ours, cut, (images[part] for part in split_slice(cut.shard_rows(number), chunk)))
        assert ours.read_bytes() == (tmp_path / f"zarr/c/{number}/0/0/0").read_bytes()


def test_a_shard_whose_chunks_end_in_an_exception_leaves_what_was_there(tmp_path):
    def chunks():
        yield np.zeros((4, 1, 2, 2), dtype=np.uint8)
        raise ValueError("no more")

    (tmp_path / "0").write_bytes(b"before")
    with pytest.raises(ValueError, match="no more"):
        write_plain_shard(tmp_path / "0", Layout(16, 4, 16), chunks())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("0", b"before")]
