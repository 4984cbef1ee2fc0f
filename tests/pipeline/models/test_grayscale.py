"""The first convolution of images of one channel: torch's outputs and gradients, whichever of them are asked for."""

import copy

import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.models.grayscale import GreyConv2d

CASES = [(5, 1, (28, 28)), (8, 2, (30, 31)), (3, 1, (9, 5)), (3, 2, (8, 8))]


def pair(kernel, stride, layout=torch.channels_last):
    torch.manual_seed(kernel)
    ours = GreyConv2d(1, 6, kernel, stride=stride).double().to(memory_format=layout)
    theirs = nn.Conv2d(1, 6, kernel, stride=stride).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("kernel", "stride", "size"), CASES)
def test_outputs_and_gradients_are_those_of_torch(kernel, stride, size, layout):
    found = []
    for layer in pair(kernel, stride, layout):
        images = torch.rand(4, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        images.requires_grad_(True)
        out = layer(images)
        out.sin().sum().backward()
        found.append((out.detach(), images.grad, layer.weight.grad, layer.bias.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_pixels_gradient_is_asked_for_alone_and_the_parameters_later_from_the_same_pass():
    ours, theirs = pair(5, 1)
    found = []
    for layer in (ours, theirs):
        images = torch.ones(2, 1, 9, 9, dtype=torch.float64, requires_grad=True)
        loss = layer(images).sin().sum()
        (grad,) = torch.autograd.grad(loss, images, retain_graph=True)
        assert layer.weight.grad is None
        loss.backward(inputs=list(layer.parameters()))
        assert images.grad is None
        found.append((grad, layer.weight.grad))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("architecture", ["A", "B", "C"])
def test_in_bf16_it_agrees_with_float64_as_often_as_torchs_own(architecture):
    model = models.create_model(architecture, (1, 28, 28), 10, seed=4).eval().requires_grad_(False)
    plain = copy.deepcopy(model)
    plain.conv1.__class__ = nn.Conv2d
    images = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    truth = grad(copy.deepcopy(plain).double(), images.double())
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = grad(model, images), grad(plain, images)
    assert ours.dtype == torch.float32
    agreement = [(found.sign() == truth.sign()).float().mean().item() for found in (ours, theirs)]
    assert agreement[0] > agreement[1] - 0.002


def grad(model, images):
    inputs = images.detach().requires_grad_(True)
    (found,) = torch.autograd.grad(model(inputs)[:, 0].float().sum(), inputs)
    return found


def test_images_of_three_channels_take_torchs_own():
    assert type(models.create_model("A", (3, 32, 32), 10, seed=0).conv1) is nn.Conv2d
    assert type(models.create_model("A", (1, 28, 28), 10, seed=0).conv1) is GreyConv2d
