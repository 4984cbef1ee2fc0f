"""The shortcuts on the CPU take the place of torch's own layers, where they serve and nowhere else."""

import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.models import tramer
from gradshard.pipeline.models.cpu_layers import SHORTCUTS, use_cpu_layers

SHAPE = (1, 28, 28)


@pytest.mark.parametrize("architecture", list(models.ARCHITECTURES))
def test_architectures_are_written_in_torchs_own_layers(architecture):
    written = tramer.build(architecture, SHAPE, 10, seed=0)
    assert {type(layer).__module__.partition(".")[0] for layer in written.modules()} == {"torch"}
    made = models.create_model(architecture, SHAPE, 10, seed=0)
    assert {type(layer) for layer in made.modules()} & set(SHORTCUTS.values())
    assert not {type(layer) for layer in made.modules()} & {nn.Dropout, nn.Flatten}


def test_a_layer_that_takes_its_shortcut_keeps_its_parameters():
    model = tramer.build("A", SHAPE, 10, seed=0)
    before = dict(model.named_parameters())
    assert use_cpu_layers(model) is model
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Conv2d(1, 4, 3, dilation=2),
        nn.Flatten(0),
        nn.Flatten(1, 2),
        nn.Dropout(0.5, inplace=True),
        nn.Dropout2d(0.5),
    ],
    ids=str,
)
def test_where_no_shortcut_serves_a_layer_stays(layer):
    before = type(layer)
    use_cpu_layers(nn.Sequential(layer))
    assert type(layer) is before


@pytest.mark.parametrize(("kernel", "stride", "size"), [(5, 1, 28), (8, 2, 30), (3, 2, 9)])
def test_a_convolution_that_takes_its_shortcut_gives_the_same_gradients(kernel, stride, size):
    layer = nn.Conv2d(1, 6, kernel, stride=stride).double()
    images = torch.rand(4, 1, size, size, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(layer(images).sin().sum(), [images, layer.weight])
    use_cpu_layers(layer)
    assert type(layer) is SHORTCUTS[nn.Conv2d]
    torch.testing.assert_close(torch.autograd.grad(layer(images).sin().sum(), [images, layer.weight]), expected)
