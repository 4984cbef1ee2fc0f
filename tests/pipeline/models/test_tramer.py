"""The paper's architectures (table 6) and their initial parameters."""

import math

import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.storage.errors import GradshardError

MNIST = (1, 28, 28)


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ("A", (25 * 64 + 64) + (25 * 64 * 64 + 64) + (25_600 * 128 + 128) + (1_290)),
        ("B", (64 * 64 + 64) + (36 * 64 * 128 + 128) + (25 * 128 * 128 + 128) + (1_290)),
        ("C", (9 * 128 + 128) + (9 * 128 * 64 + 64) + (36_864 * 128 + 128) + (1_290)),
        ("D", (784 * 300 + 300) + 3 * (300 * 300 + 300) + (3_010)),
    ],
)
def test_architectures_have_the_parameters_of_table_6(architecture, parameters):
    model = models.create_model(architecture, MNIST, 10, seed=0)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, *MNIST)).shape == (2, 10)


def rates(model):
    return [module.p for module in model.modules() if isinstance(module, nn.Dropout)]


def test_dropout_is_where_table_6_has_it():
    found = {name: rates(models.create_model(name, MNIST, 10, seed=0)) for name in models.ARCHITECTURES}
    assert found == {"A": [0.25, 0.5], "B": [0.2, 0.5], "C": [0.25, 0.5], "D": [0.5] * 4}


def test_b_has_the_strides_and_paddings_of_the_authors_code():
    model = models.create_model("B", MNIST, 10, seed=0)
    sizes = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[2:])))
    model(torch.zeros(1, *MNIST))
    assert sizes == [(14, 14), (5, 5), (1, 1)]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 29, 31), (1, 27, 40)])
@pytest.mark.parametrize("architecture", list(models.ARCHITECTURES))
def test_architectures_take_images_of_other_sizes(architecture, shape):
    model = models.create_model(architecture, shape, 7, seed=0).eval()
    assert model(torch.rand(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("architecture", ["A", "B", "C"])
def test_images_that_are_too_small_are_refused(architecture):
    with pytest.raises(GradshardError, match=f"images of 2x9 pixels are too small for architecture {architecture}"):
        models.create_model(architecture, (1, 2, 9), 10, seed=0)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(GradshardError, match="unknown architecture E: the known ones are A, B, C, D"):
        models.create_model("E", MNIST, 10, seed=0)


def test_a_mistyped_architecture_is_told_the_one_that_was_meant():
    with pytest.raises(GradshardError, match=r"unknown architecture smallcnn \(did you mean small_cnn\?\): the known"):
        models.create_model("smallcnn", MNIST, 10)


@pytest.mark.parametrize("shape", [(28, 28), 28, (1, 28, 0), (1, 28.0, 28), "abc"])
def test_what_is_no_shape_of_an_image_is_refused(shape):
    with pytest.raises(GradshardError, match=r"sample_shape is .*: give \(C, H, W\) of an image"):
        models.create_model("A", shape, 10)


def test_without_a_seed_the_parameters_are_those_of_seed_0():
    with_it, without = models.create_model("D", MNIST, 10, seed=0), models.create_model("D", MNIST, 10)
    assert all(map(torch.equal, with_it.parameters(), without.parameters()))


@pytest.mark.parametrize("architecture", list(models.ARCHITECTURES))
def test_initial_parameters_follow_the_seed_and_nothing_else(architecture):
    torch.manual_seed(1)
    one = models.create_model(architecture, MNIST, 10, seed=5).state_dict()
    torch.manual_seed(2)
    same = models.create_model(architecture, MNIST, 10, seed=5).state_dict()
    other = models.create_model(architecture, MNIST, 10, seed=6).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_hidden_layers_of_d_are_he_normal_and_all_others_glorot_uniform():
    d, a = models.create_model("D", MNIST, 10, seed=0), models.create_model("A", MNIST, 10, seed=0)
    assert d.fc2.weight.std().item() == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    assert d.fc2.weight.abs().max() > 3 * d.fc2.weight.std()
    for weight in (d.fc5.weight, a.fc3.weight, a.conv2.weight):
        fan = nn.init._calculate_fan_in_and_fan_out(weight)
        bound = math.sqrt(6 / sum(fan))
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_a_restored_model_is_frozen_in_eval_mode_and_computes_the_same():
    trained = models.create_model("B", MNIST, 10, seed=3).eval()
    restored = models.load_frozen("B", MNIST, 10, trained.state_dict(), where="w")
    images = torch.rand(4, *MNIST)
    assert torch.equal(restored(images), trained(images))
    assert not restored.training
    assert not any(p.requires_grad for p in restored.parameters())


def test_parameters_of_another_architecture_are_refused():
    parameters = models.create_model("C", MNIST, 10, seed=0).state_dict()
    with pytest.raises(GradshardError, match=r"w\.safetensors does not hold the parameters of architecture A"):
        models.load_frozen("A", MNIST, 10, parameters, where="w.safetensors")
