"""Auxiliary classifiers: which layer they sit on, and who has none."""

import pytest
import torch

from gradshard.pipeline import models
from gradshard.storage.errors import GradshardError

SHAPE = (3, 107, 107)  # the smallest for which 5x5 features are left


def head(architecture, shape=SHAPE):
    model = models.create_model(architecture, shape, 7, seed=1)
    found = models.auxiliary_head(model, shape, 7, weight=0.4, seed=2, where=f"architecture {architecture}")
    return model, found


@pytest.mark.parametrize(
    ("architecture", "channels"),
    [
        ("timm:inception_v3", 768),
        ("torchvision:inception_v3", 768),
        pytest.param("timm:inception_v4", 1024, marks=pytest.mark.slow),
        pytest.param("timm:inception_resnet_v2", 1088, marks=pytest.mark.slow),
    ],
)
def test_it_sits_on_the_last_layer_of_the_17x17_features(architecture, channels):
    model, found = head(architecture)
    assert found.state_dict()["_layers.1.weight"].shape == (128, channels, 1, 1)
    logits = found(model, torch.rand(2, *SHAPE))
    assert logits.shape == (2, 2, 7)
    assert not torch.allclose(logits[:, 0], logits[:, 1])
    assert model.training


def test_the_seed_decides_its_weights():
    torch.manual_seed(3)
    model = models.create_model("timm:inception_v3", SHAPE, 7, seed=1)
    one, same, other = (models.auxiliary_head(model, SHAPE, 7, weight=0.4, seed=seed, where="") for seed in (2, 2, 3))
    assert torch.equal(one.state_dict()["_layers.8.weight"], same.state_dict()["_layers.8.weight"])
    assert not torch.equal(one.state_dict()["_layers.8.weight"], other.state_dict()["_layers.8.weight"])


@pytest.mark.parametrize(
    ("architecture", "shape", "sentence"),
    [
        (
            "D",
            (1, 28, 28),
            "architecture D has no auxiliary classifier, as Inception3, InceptionResnetV2, InceptionV3, ",
        ),
        ("timm:inception_v3", (3, 96, 96), "has 4x4 features where its auxiliary classifier needs 5x5: take a larger"),
    ],
)
def test_a_model_without_one_is_told_in_one_sentence(architecture, shape, sentence):
    with pytest.raises(GradshardError) as told:
        head(architecture, shape)
    assert sentence in str(told.value)
