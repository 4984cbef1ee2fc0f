"""The moving average of the weights: what it is of, and that it is what a run gives and goes on from."""

import pytest
import torch
from torch import nn

from gradshard.pipeline.training.weight_average import WeightAverage
from gradshard.storage.errors import GradshardError


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.fixture
def trained():
    """A small model and its average after some steps, and the state of the model after each."""
    model = small()
    average, states = WeightAverage(model, 0.9), []
    for _ in range(30):
        loss = model(torch.rand(5, 1, 4, 4)).square().sum()
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01 * parameter.grad
        average.update_parameters(model)
        states.append({name: tensor.double().clone() for name, tensor in model.state_dict().items()})
    return model, average, states


def test_it_follows_tensorflows_formula_for_weights_and_running_statistics(trained):
    _, average, (expected, *others) = trained
    for updates, state in enumerate(others, start=1):
        decay = min(0.9, (1 + updates) / (10 + updates))
        expected = {name: decay * expected[name] + (1 - decay) * tensor for name, tensor in state.items()}
    found = average.module.state_dict()
    assert found.pop("1.num_batches_tracked") == len(others) + 1
    assert all(torch.allclose(tensor.double(), expected[name], atol=1e-6) for name, tensor in found.items())
    assert not torch.allclose(found["3.weight"].double(), others[-1]["3.weight"], atol=1e-3)
    assert not torch.allclose(found["1.running_var"].double(), others[-1]["1.running_var"], atol=1e-4)


def test_it_is_in_eval_mode_and_takes_no_gradients(trained):
    model, average, _ = trained
    assert model.training
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_a_model_that_cannot_be_copied_is_refused_in_one_sentence():
    model = small()
    model.last = model(torch.rand(5, 1, 4, 4))  # a result with its graph, which torch does not copy
    with pytest.raises(GradshardError, match=r"training\.average needs a copy of the model.*: set it to null"):
        WeightAverage(model, 0.9)
