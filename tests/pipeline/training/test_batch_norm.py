"""Passes that only craft leave everything that a layer remembers as it was, whatever the layer is."""

import pytest
import torch
from torch import nn

from gradshard.pipeline.training.batch_norm import frozen_statistics

LAYERS = {
    "batch norm": lambda: nn.BatchNorm2d(1),
    "instance norm": lambda: nn.InstanceNorm2d(1, affine=True, track_running_stats=True),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 8, 3)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_no_buffer_of_any_layer_moves_while_a_model_crafts(layer):
    model = nn.Sequential(LAYERS[layer](), nn.ReLU())
    own, before = dict(model.named_buffers()), {name: tensor.clone() for name, tensor in model.named_buffers()}
    assert before
    with frozen_statistics(model):
        model(torch.rand(4, 1, 5, 5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
    assert all(tensor is own[name] for name, tensor in model.named_buffers()), "the same tensors, not copies"
    model(torch.rand(4, 1, 5, 5))
    assert not all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
