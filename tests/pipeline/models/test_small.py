"""The small models: what they cost, which of them normalise by batch, and that the seed decides them."""

import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.models.small import ARCHITECTURES
from gradshard.storage.errors import GradshardError


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 17, 23)])
def test_they_take_images_of_any_size_and_channels(architecture, shape):
    model = models.create_model(architecture, shape, 7, seed=0)
    assert model(torch.rand(2, *shape)).shape == (2, 7)
    by_batch = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert by_batch == (architecture != "small_cnn")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pass_costs_less_than_a_hundredth_of_inception_v3(architecture):
    model, operations = models.create_model(architecture, (3, 32, 32), 10, seed=0).eval(), []

    def count(module, _, out):
        operations.append(2 * out[0].numel() * module.weight[0].numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    model(torch.rand(1, 3, 32, 32))
    assert 1e6 < sum(operations) < 11.4e9 / 100


def test_the_seed_decides_the_parameters():
    one, same, other = (
        models.create_model("small_resnet", (3, 32, 32), 10, seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_images_that_vanish_on_the_way_are_refused():
    with pytest.raises(GradshardError, match="architecture small_vgg does not take images of 3x4x4 and 10 classes"):
        models.create_model("small_vgg", (3, 4, 4), 10, seed=0)
