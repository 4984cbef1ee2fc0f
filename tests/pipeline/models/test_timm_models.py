"""``timm:NAME``: what is built, how it normalises, and what is said of names and images that do not fit."""

import sys
from functools import partial

import pytest
import timm
import torch

from gradshard.pipeline import models
from gradshard.pipeline.models.normalize import Normalised
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints

TINY = "timm:test_resnet"
SHAPE = (3, 64, 64)
FOUR = ["inception_v3", "inception_v4", "inception_resnet_v2", "resnetv2_50"]


def test_a_model_normalises_as_timm_says_and_is_timms_otherwise():
    model = models.create_model(TINY, SHAPE, 7, seed=3)
    config = timm.get_pretrained_cfg("test_resnet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = timm.create_model("test_resnet", num_classes=7)
    assert all(torch.equal(tensor, model.model.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    images = torch.rand(4, *SHAPE)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (config.mean, config.std))
    expected = theirs.eval()((images - mean) / std)
    torch.testing.assert_close(model.eval()(images), expected, rtol=1e-5, atol=1e-6)


def test_the_tag_says_how_a_model_normalises():
    tf, gluon = (
        models.create_model(f"timm:inception_v3.{tag}", (3, 75, 75), 5, seed=0) for tag in ("tf_in1k", "gluon_in1k")
    )
    assert tf.mean.ravel().tolist() == [0.5, 0.5, 0.5]
    assert gluon.mean.ravel().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert checkpoints.tensors_digest(tf.state_dict(), "x") != checkpoints.tensors_digest(gluon.state_dict(), "x")


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_normalised_by_the_average(channels):
    model = models.create_model("timm:resnet18", (channels, 32, 32), 5, seed=0).eval()
    assert model.mean.shape == (1, channels, 1, 1)
    assert model.mean.ravel().tolist() == pytest.approx([(0.485 + 0.456 + 0.406) / 3] * channels)
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, 5)


def test_an_architecture_of_one_size_is_built_for_the_images():
    model = models.create_model("timm:test_vit", (3, 96, 96), 5, seed=0).eval()
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 5)


def test_every_pixel_counts_where_the_image_is_a_multiple_of_the_patch():
    model = models.create_model("timm:test_vit", (1, 48, 32), 5, seed=0).eval()
    images = torch.rand(2, 1, 48, 32, requires_grad=True)
    model(images)[:, 0].sum().backward()
    assert bool((images.grad != 0).any(0).all())


@pytest.mark.parametrize("name", [TINY, "timm:test_vit"])
def test_a_model_comes_back_from_its_file_with_all_buffers(tmp_path, name):
    model = models.create_model(name, SHAPE, 7, seed=1)
    for _ in range(3):
        model(torch.rand(8, *SHAPE))
    checkpoints.save(tmp_path / "w.safetensors", model.state_dict(), {"architecture": name})
    tensors, _ = checkpoints.load(tmp_path / "w.safetensors")
    restored = models.load_frozen(name, SHAPE, 7, tensors, where="w")
    images = torch.rand(4, *SHAPE)
    assert torch.equal(restored(images), model.eval()(images))
    assert {"mean", "std"} <= tensors.keys()
    assert checkpoints.tensors_digest(tensors, name) == checkpoints.tensors_digest(model.state_dict(), name)


def test_a_checkpoint_of_timms_own_names_fills_a_model():
    theirs = timm.create_model("test_resnet", num_classes=7)
    model = models.create_model(TINY, SHAPE, 7, seed=1)
    assert models.load_weights(model, theirs.state_dict(), where="c.pt") == []
    assert torch.equal(model.model.state_dict()["conv1.0.weight"], theirs.state_dict()["conv1.0.weight"])
    again = models.create_model(TINY, SHAPE, 7, seed=2)
    assert models.load_weights(again, model.state_dict(), where="ours.safetensors") == []
    images = torch.rand(2, *SHAPE)
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_a_checkpoint_for_other_classes_is_refused():
    theirs = timm.create_model("test_resnet", num_classes=1000).state_dict()
    with pytest.raises(
        GradshardError, match=r"holds fc\.weight of shape \(1000, \d+\), but the architecture has \(7, "
    ):
        models.load_weights(models.create_model(TINY, SHAPE, 7, seed=1), theirs, where="c.pt")


@pytest.mark.parametrize(
    ("architecture", "shape", "sentence"),
    [
        ("timm:inception_v33", (3, 299, 299), r"has no model inception_v33 \(did you mean inception_v3\?\)"),
        (
            "timm:inception_v3.nope",
            (3, 299, 299),
            r"no weights by the name inception_v3\.nope: there are .*tf_adv_in1k",
        ),
        ("timm:hf-hub:somebody/model", (3, 299, 299), "has no model hf-hub:somebody/model"),
        ("timm:local-dir:/tmp/model", (3, 299, 299), "has no model local-dir:/tmp/model"),
        ("timm:", (3, 299, 299), "has no model "),
        (
            "timm:inception_v3",
            (3, 32, 32),
            r"does not take images of 3x32x32 and 7 classes \(.*\): it was made for 299x299 pixels; choose another "
            r"dataset\.size",
        ),
        ("timm:vit_tiny_patch16_224", (3, 10, 10), "10x10 into patches of 16x16 and ignores the 100 pixels"),
        ("timm:mixer_s32_224", (3, 40, 40), "40x40 into patches of 32x32 and ignores the 576 pixels"),
        (
            "timm:vit_tiny_patch16_224",
            (1, 28, 28),
            r"cuts images of 28x28 into patches of 16x16 and ignores the 528 pixels that are left over: choose a",
        ),
    ],
)
def test_names_and_images_that_do_not_fit_are_refused(architecture, shape, sentence):
    with pytest.raises(GradshardError, match=sentence):
        models.create_model(architecture, shape, 7, seed=0)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(GradshardError, match=r"needs the package timm: pip install 'gradshard\[timm\]'"):
        models.create_model("timm:inception_v3", (3, 75, 75), 7, seed=0)


def test_pretrained_weights_are_those_of_the_tag_and_their_classes_are_known():
    assert models.pretrained_classes("timm:inception_v3.tf_adv_in1k") == 1000
    assert models.pretrained_classes("timm:convnext_tiny.fb_in22k") == 21841
    with pytest.raises(
        GradshardError, match=r"timm has no pretrained weights of \w+: name a file in weights, or random"
    ):
        models.pretrained_classes("timm:cspresnet50d")


def test_the_origin_of_a_model_names_timms_version():
    assert models.provenance(TINY) == {"timm": timm.__version__}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_the_four_of_the_paper_follow_the_seed(name):
    one, same, other = (models.create_model(f"timm:{name}", (3, 75, 75), 10, seed=seed) for seed in (1, 1, 2))
    assert isinstance(one, Normalised)
    state, again, third = (model.state_dict() for model in (one, same, other))
    assert all(torch.equal(state[key], again[key]) for key in state)
    assert sum(not torch.equal(state[key], third[key]) for key in state) > 50


def test_tensorflows_weights_are_pooled_as_tensorflow_pools(monkeypatch):
    """Padding is left out of means; weights that were trained elsewhere are pooled as timm does."""
    images, pool = torch.rand(2, 3, 75, 75), torch.nn.functional.avg_pool2d
    ours = models.create_model("timm:inception_v3.tf_in1k", (3, 75, 75), 5, seed=0).eval()
    others = models.create_model("timm:inception_v3.gluon_in1k", (3, 75, 75), 5, seed=0).eval()
    with torch.no_grad():
        found, other = ours(images), others.model(2 * images - 1)
        monkeypatch.setattr(torch.nn.functional, "avg_pool2d", partial(pool, count_include_pad=False))
        expected = others.model(2 * images - 1)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, other, rtol=1e-2, atol=1e-3)
