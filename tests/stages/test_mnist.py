"""The paper's data, where it is at hand: GRADSHARD_DATA names the folder of MNIST's four files."""

import os

import pytest

from gradshard.pipeline.config.profiles import profiles
from gradshard.storage.formats.dataset import open_dataset


@pytest.mark.skipif("GRADSHARD_DATA" not in os.environ, reason="GRADSHARD_DATA names no folder of MNIST's files")
def test_mnist_is_prepared_from_the_folder(project, gradshard):
    (project.path / "params.yaml").write_text(profiles()["mnist"])
    code, said = gradshard(project, "prepare")
    assert code == 0, said
    data = open_dataset(project.path / "data/mnist.zarr")
    assert (len(data.train), len(data.test), data.sample_shape) == (60_000, 10_000, (1, 28, 28))
    assert data.train.digest.startswith("60cc6cfe5409")
    assert data.train.read_labels(0, 10).tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
