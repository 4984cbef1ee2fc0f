"""Checkpoints that TensorFlow 2.15 wrote: tensorflow/ holds two of three variables each, of either format."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.tensorflow_checkpoints import is_tensorflow, read_tensorflow

WRITTEN = Path(__file__).parent / "tensorflow"
DATA = "small.ckpt.data-00000-of-00001"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(WRITTEN, tmp_path / "written"))


@pytest.mark.parametrize("name", ["small.ckpt", "small.ckpt.index", DATA])
def test_variables_are_read_by_name_whichever_file_is_given(name):
    found = read_tensorflow(WRITTEN / name)
    weights, beta, step = (
        found[f"{name}"]
        for name in ("InceptionV3/Conv2d_1a_3x3/weights", "InceptionV3/Conv2d_1a_3x3/BatchNorm/beta", "global_step")
    )
    assert len(found) == 3
    assert np.array_equal(weights, np.random.RandomState(0).rand(2, 3).astype(np.float32))
    assert (beta.dtype, beta.tolist()) == (np.float64, [0, 1, 2, 3, 4])
    assert (step.dtype, step.shape, int(step)) == (np.int64, (), 7)
    assert is_tensorflow(WRITTEN / name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [(DATA, "is damaged at .*: fetch it again$"), ("small.ckpt.index", "is not the index of a TensorFlow checkpoint")],
)
@pytest.mark.parametrize("byte", [0, 5, 40, -1])
def test_a_changed_byte_is_noticed(folder, name, sentence, byte):
    content = bytearray((folder / name).read_bytes())
    content[byte] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(GradshardError, match=sentence):
        read_tensorflow(folder / "small.ckpt")


def test_a_missing_file_is_named(folder):
    (folder / DATA).unlink()
    with pytest.raises(GradshardError, match=f"{DATA} is missing, which .* names: fetch the whole checkpoint"):
        read_tensorflow(folder / "small.ckpt")
    with pytest.raises(GradshardError, match=r"no TensorFlow checkpoint at .*none: .*none\.index is missing"):
        read_tensorflow(folder / "none")


def test_the_first_format_is_told_from_others(folder):
    assert is_tensorflow(folder / "first.ckpt")
    assert not is_tensorflow(Path(__file__))
    with pytest.raises(GradshardError, match="is a checkpoint of TensorFlow's first format: restore it with a Saver"):
        read_tensorflow(folder / "first.ckpt")
