"""Computing the signs of a shard: the same as of all its rows at once, in memory for some chunks of them."""

import numpy as np
import pytest
import torch

from gradshard.pipeline import models
from gradshard.pipeline.gradients.signs import GradientSpec, compute_signs
from gradshard.stages.jobs.compute_rows import compute_rows
from gradshard.stages.jobs.models import LoadedModel
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset

DIRECTION = GradientSpec("exact", "predicted")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1300, 1, 48, 48), dtype=np.uint8)
    labels = rng.integers(0, 10, 1300)
    path = tmp_path_factory.mktemp("data") / "data.zarr"
    for _ in write_dataset(
        path, name="random", classes=10, splits={"train": (images, labels), "test": (images, labels)}
    ):
        pass
    return open_dataset(path).train


@pytest.fixture(scope="module")
def model():
    return LoadedModel(models.create_model("D", (1, 48, 48), 10, seed=1).eval(), "D", "0" * 64, "0" * 64)


@pytest.mark.parametrize("rows", [slice(0, 1300), slice(0, 64), slice(1280, 1300)])
def test_pieces_give_what_all_rows_at_once_do(split, model, rows):
    images, labels = split.read_images(rows.start, rows.stop), split.read_labels(rows.start, rows.stop)
    signs, used = compute_signs(model.module, torch.from_numpy(images), torch.from_numpy(labels), DIRECTION)
    planes, chosen = compute_rows(model, split, rows, DIRECTION, torch.device("cpu"))
    assert (bitplanes.unpack(planes[0], 48 * 48) == signs.numpy()).all()
    assert (chosen == used.numpy()).all()


def test_no_more_images_are_held_than_a_mebibyte_and_a_chunk(split, model, monkeypatch):
    read, asked = Split.read_images, []

    def noting(self, start, stop):
        asked.append((start, stop))
        return read(self, start, stop)

    monkeypatch.setattr(Split, "read_images", noting)
    compute_rows(model, split, slice(0, 1300), DIRECTION, torch.device("cpu"))
    assert max(stop - start for start, stop in asked) < (1 << 20) / (48 * 48) + split.chunk < 1300
    assert all(start % split.chunk == 0 for start, _ in asked), "a chunk is read as a whole: twice would be waste"
    assert [start for start, _ in asked[1:]] == [stop for _, stop in asked[:-1]]
