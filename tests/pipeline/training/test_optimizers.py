import subprocess
import sys

import pytest
import torch
from torch import nn

from gradshard.pipeline.training.optimizers import Adam, Optimization, RMSProp, load_state


def gradients(model, seed):
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)


def models():
    torch.manual_seed(0)
    one, other = nn.Linear(7, 5), nn.Linear(7, 5)
    other.load_state_dict(one.state_dict())
    return one, other


def test_it_is_torchs_adam():
    ours, theirs = models()
    one, other = Adam(ours), torch.optim.Adam(theirs.parameters(), lr=0.01, fused=True)
    for seed in range(20):
        gradients(ours, seed)
        gradients(theirs, seed)
        one.step(0.01)
        other.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert ours.weight.grad is None


@pytest.mark.parametrize("kind", [Adam, RMSProp])
def test_it_goes_on_from_its_state(kind):
    one, other = models()
    first, second = kind(one), kind(other)
    for seed in range(5):
        gradients(one, seed)
        first.step(0.01)
    other.load_state_dict(one.state_dict())
    load_state(second, {name: tensor.clone() for name, tensor in first.state().items()})
    for model, optimizer in ((one, first), (other, second)):
        gradients(model, 9)
        optimizer.step(0.01)
    assert torch.equal(one.weight, other.weight)


def test_training_does_not_import_torchs_compiler():
    code = (
        "import sys, torch, gradshard.pipeline.training.trainer; "
        "from gradshard.pipeline.training.optimizers import Adam; "
        "Adam(torch.nn.Linear(2, 2))"
    )
    command = [sys.executable, "-c", f"{code}; sys.exit('torch._dynamo' in sys.modules)"]
    subprocess.run(command, check=True)


def test_rmsprop_is_tensorflows():
    """s <- 0.9 s + 0.1 g^2 from s = 1, p <- p - rate g / sqrt(s + 1), in plain arithmetic."""
    model, _ = models()
    optimizer = RMSProp(model)
    expected, square = model.weight.detach().double().clone(), torch.ones(5, 7, dtype=torch.float64)
    for seed in range(5):
        gradients(model, seed)
        grad = model.weight.grad.double()
        square = 0.9 * square + 0.1 * grad**2
        expected -= 0.045 * grad / (square + 1).sqrt()
        optimizer.step(0.045)
    assert torch.allclose(model.weight.double(), expected, atol=1e-6)
    assert model.weight.grad is None


@pytest.mark.parametrize("kind", [Adam, RMSProp])
def test_a_parameter_without_a_gradient_stays(kind):
    model, _ = models()
    optimizer, before = kind(model), model.bias.detach().clone()
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step(0.1)
    assert torch.equal(model.bias, before)


def test_the_rate_decays_by_a_factor_every_few_epochs():
    """The paper's, section 5.2: 0.045, times 0.94 every two epochs."""
    rates = [Optimization("rmsprop", 0.045, 0.94, 2).rate(epoch) for epoch in range(6)]
    assert rates == pytest.approx([0.045, 0.045, 0.0423, 0.0423, 0.039762, 0.039762])
    assert Optimization("adam", 0.001).rate(100) == 0.001
