import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from gradshard.pipeline.training.optimizers import (
    SGD,
    Adam,
    Optimization,
    RMSProp,
    adjust_gradients,
    load_state,
    make_optimizer,
)

ALL = [
    Optimization("adam", 0.01),
    Optimization("sgd", 0.01),
    Optimization("sgd", 0.01, momentum=0.9, nesterov=True),
    Optimization("rmsprop", 0.01),
    Optimization("rmsprop", 0.01, momentum=0.9),
]
each = pytest.mark.parametrize("chosen", ALL, ids=["adam", "sgd", "nesterov", "rmsprop", "rmsprop with momentum"])


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


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.8, "nesterov": True}])
def test_it_is_torchs_sgd(options):
    ours, theirs = models()
    one, other = SGD(ours, **options), torch.optim.SGD(theirs.parameters(), lr=0.01, fused=True, **options)
    for seed in range(20):
        gradients(ours, seed)
        gradients(theirs, seed)
        one.step(0.01)
        other.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert ours.weight.grad is None


@each
def test_it_goes_on_from_its_state(chosen):
    one, other = models()
    first, second = make_optimizer(chosen, one), make_optimizer(chosen, other)
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


@pytest.mark.parametrize(("decay", "epsilon", "momentum"), [(0.9, 1.0, 0.0), (0.9, 1.0, 0.9), (0.8, 0.01, 0.5)])
def test_rmsprop_is_tensorflows(decay, epsilon, momentum):
    """s <- d s + (1 - d) g^2 from s = 1, v <- m v + rate g / sqrt(s + e), p <- p - v, in plain arithmetic."""
    model, _ = models()
    optimizer = RMSProp(model, decay=decay, epsilon=epsilon, momentum=momentum)
    expected, square, velocity = model.weight.detach().double().clone(), torch.ones(5, 7, dtype=torch.float64), 0
    for seed in range(5):
        gradients(model, seed)
        grad, rate = model.weight.grad.double(), 0.045 / (1 + seed)
        square = decay * square + (1 - decay) * grad**2
        velocity = momentum * velocity + rate * grad / (square + epsilon).sqrt()
        expected -= velocity
        optimizer.step(rate)
    assert torch.allclose(model.weight.double(), expected, atol=1e-6)
    assert model.weight.grad is None


@each
def test_a_parameter_without_a_gradient_stays(chosen):
    model, _ = models()
    optimizer, before = make_optimizer(chosen, model), model.bias.detach().clone()
    model.weight.grad = torch.ones_like(model.weight)
    adjust_gradients(list(model.parameters()), Optimization("sgd", 0.1, weight_decay=0.1, clip_norm=1.0))
    optimizer.step(0.1)
    assert torch.equal(model.bias, before)


def test_gradients_are_clipped_together_and_then_weights_decay_but_no_biases():
    ours, theirs = models()
    gradients(ours, 0)
    gradients(theirs, 0)
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
    adjust_gradients(list(ours.parameters()), Optimization("sgd", 0.1, weight_decay=0.1, clip_norm=0.5))
    assert torch.allclose(ours.weight.grad, theirs.weight.grad + 0.1 * ours.weight)
    assert torch.equal(ours.bias.grad, theirs.bias.grad)
    assert theirs.weight.grad.norm() < 0.5


def test_by_default_gradients_are_left_alone():
    model, _ = models()
    gradients(model, 0)
    before = model.weight.grad.clone()
    adjust_gradients(list(model.parameters()), Optimization("adam", 0.1))
    assert torch.equal(model.weight.grad, before)


def test_the_rate_decays_by_a_factor_every_few_epochs():
    """The paper's, section 5.2: 0.045, times 0.94 every two epochs."""
    rates = [Optimization("rmsprop", 0.045, 0.94, 2).rate(epoch, 6) for epoch in range(6)]
    assert rates == pytest.approx([0.045, 0.045, 0.0423, 0.0423, 0.039762, 0.039762])
    assert Optimization("adam", 0.001).rate(100, 200) == 0.001


@pytest.mark.parametrize(
    ("changed", "theirs"),
    [
        ({"decay": 0.94, "decay_epochs": 2}, lambda sgd: schedulers.StepLR(sgd, 2, 0.94)),
        (
            {"decay": 0.1, "schedule": "step", "milestones": (3, 7)},
            lambda sgd: schedulers.MultiStepLR(sgd, [3, 7], 0.1),
        ),
        ({"schedule": "cosine"}, lambda sgd: schedulers.CosineAnnealingLR(sgd, 10)),
    ],
    ids=["exponential", "step", "cosine"],
)
def test_schedules_are_torchs(changed, theirs):
    chosen, sgd = Optimization("sgd", 0.3, **changed), torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.3)
    scheduler = theirs(sgd)
    for epoch in range(10):
        assert chosen.rate(epoch, 10) == pytest.approx(scheduler.get_last_lr()[0])
        sgd.step()
        scheduler.step()
