"""Weights of TF-slim converted, from every form that they come in."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from gradshard.pipeline import models
from gradshard.storage.formats import checkpoints
from tests.helpers.projects import call
from tests.helpers.slim_variables import slim_variables

# A Python that has tensorflow-cpu 2.15, tf_keras 2.15 and tf-slim, which go with no NumPy of ours.
TENSORFLOW = os.environ.get("GRADSHARD_TENSORFLOW_PYTHON")
SIDE = 107
# A model of TF-slim with random weights, its checkpoint, and its logits for random images.
PROGRAM = """
import sys
import numpy as np
import tensorflow.compat.v1 as tf
import tf_keras.src.legacy_tf_layers.normalization as normalization
sys.modules["tf_keras.legacy_tf_layers.normalization"] = normalization  # where TensorFlow looks for it
sys.modules["tf_keras.legacy_tf_layers"] = sys.modules["tf_keras.src.legacy_tf_layers"]
import tf_slim as slim
from tf_slim.nets import inception_v3
tf.disable_v2_behavior()
side, draws = int(sys.argv[1]), np.random.RandomState(0)
images = tf.placeholder(tf.float32, (None, side, side, 3))
with slim.arg_scope(inception_v3.inception_v3_arg_scope()):
    logits, _ = inception_v3.inception_v3(images, num_classes=1001, is_training=False)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for variable in tf.global_variables():
        shape, name = variable.shape.as_list(), variable.op.name
        if name.endswith("moving_variance"):
            values = draws.uniform(0.5, 1.5, shape)
        else:
            values = draws.normal(0, (2 / np.prod(shape[:-1])) ** 0.5 if name.endswith("weights") else 0.1, shape)
        variable.load(values, session)
    given = draws.uniform(0, 1, (2, side, side, 3)).astype(np.float32)
    np.savez("logits.npz", images=given, logits=session.run(logits, {images: 2 * given - 1}))
    tf.train.Saver().save(session, "model.ckpt")
"""


def converted(path: Path) -> torch.nn.Module:
    """The model of timm that a converted file tells, with its weights."""
    tensors, record = checkpoints.load(path)
    model = models.create_model(record["architecture"], (3, SIDE, SIDE), 1000, seed=0)
    assert models.load_weights(model, tensors, where=str(path)) == []
    return model.eval()


@pytest.mark.slow
@pytest.mark.skipif(
    TENSORFLOW is None, reason="GRADSHARD_TENSORFLOW_PYTHON names no Python with TensorFlow and TF-slim"
)
def test_a_model_of_tf_slim_gives_its_logits_after_conversion(tmp_path, monkeypatch):
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "PYTHONPATH": ""}
    subprocess.run(
        [TENSORFLOW, "-c", PROGRAM, str(SIDE)], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    out = tmp_path / "w.safetensors"
    assert call(monkeypatch, "weights", "convert", str(tmp_path / "model.ckpt.index"), str(out)) == 0
    expected = np.load(tmp_path / "logits.npz")
    images = torch.from_numpy(expected["images"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = converted(out)(images).numpy()
    assert np.abs(expected["logits"]).max() > 0.1
    assert np.abs(found - expected["logits"][:, 1:]).max() < 1e-4


@pytest.mark.slow
def test_mmdnns_arrays_become_a_file_that_a_model_takes(tmp_path, monkeypatch, capsys):
    kinds = {
        "weights": ("Conv2D", "weights"),
        "biases": ("Conv2D", "bias"),
        "BatchNorm/beta": ("BatchNorm/FusedBatchNorm", "bias"),
        "BatchNorm/moving_mean": ("BatchNorm/FusedBatchNorm", "mean"),
        "BatchNorm/moving_variance": ("BatchNorm/FusedBatchNorm", "var"),
    }
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, shape in slim_variables("InceptionV3").items():
        kind = next((kind for kind in kinds if name.endswith(f"/{kind}")), None)
        if kind is not None:
            operation, array = kinds[kind]
            layer = f"InceptionV3/{name.removesuffix(kind)}" if "Logits" not in name else name.removesuffix(kind)
            value = np.full(shape, 0.5, np.float32)
            arrays.setdefault(layer + operation, {})[array] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    np.save(tmp_path / "port.npy", arrays)
    out = tmp_path / "w.safetensors"
    assert call(monkeypatch, "weights", "convert", str(tmp_path / "port.npy"), str(out)) == 0
    assert "472 tensors of timm:inception_v3.tf_adv_in1k" in capsys.readouterr().err
    converted(out)


def test_what_is_no_such_model_is_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    assert call(monkeypatch, "weights", "convert", str(tmp_path / "other.pth"), str(tmp_path / "out")) == 2
    assert (
        "other.pth does not hold TF-slim's weights of one of InceptionV3, InceptionResnetV2" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_the_file_to_convert_is_not_overwritten(tmp_path, monkeypatch, capsys):
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    before = (tmp_path / "other.pth").read_bytes()
    assert call(monkeypatch, "weights", "convert", str(tmp_path / "other.pth"), str(tmp_path / "other.pth")) == 2
    assert "other.pth is the file to convert, which would be lost" in capsys.readouterr().err
    assert (tmp_path / "other.pth").read_bytes() == before
