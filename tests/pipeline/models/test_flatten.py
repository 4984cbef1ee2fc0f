"""Flattening changes neither features nor gradients, and gives gradients in the features' memory format."""

import copy

import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.models.flatten import Flatten

LAYOUTS = [torch.channels_last, torch.contiguous_format]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_comes_back_laid_out_as_the_features_are(layout):
    features = torch.rand(3, 4, 5, 6).to(memory_format=layout).requires_grad_(True)
    weights = torch.rand(3, 120)
    seen = []
    between = features * 2
    between.register_hook(seen.append)
    flat = Flatten()(between)
    (flat * weights).sum().backward()
    assert torch.equal(flat, 2 * features.flatten(1))
    assert torch.equal(features.grad, 2 * weights.view(3, 4, 5, 6))
    assert seen[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("architecture", ["A", "B", "C", "D"])
def test_a_models_gradients_are_those_with_torchs_own_flatten(architecture):
    ours = models.create_model(architecture, (1, 28, 28), 10, seed=3).eval()
    theirs = copy.deepcopy(ours)
    theirs.flatten = nn.Flatten()
    images = torch.rand(5, 1, 28, 28)
    for model in (ours, theirs):
        nn.functional.cross_entropy(model(images), torch.arange(5)).backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_what_is_no_batch_of_feature_maps_is_flattened_too():
    assert Flatten()(torch.rand(2, 3, 4)).shape == (2, 12)
