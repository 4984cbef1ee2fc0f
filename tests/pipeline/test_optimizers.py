import subprocess
import sys

import torch
from torch import nn

from pipeline.optimizers import Adam


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
    one, other = Adam(ours, 0.01), torch.optim.Adam(theirs.parameters(), lr=0.01, fused=True)
    for seed in range(20):
        gradients(ours, seed)
        gradients(theirs, seed)
        one.step()
        other.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert ours.weight.grad is None


def test_it_goes_on_from_its_state():
    one, other = models()
    first, second = Adam(one, 0.01), Adam(other, 0.01)
    for seed in range(5):
        gradients(one, seed)
        first.step()
    other.load_state_dict(one.state_dict())
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for model, optimizer in ((one, first), (other, second)):
        gradients(model, 9)
        optimizer.step()
    assert torch.equal(one.weight, other.weight)


def test_training_does_not_import_torchs_compiler():
    code = (
        "import sys, pipeline.training, torch; from pipeline.optimizers import Adam; Adam(torch.nn.Linear(2, 2), 0.1)"
    )
    command = [sys.executable, "-c", f"{code}; sys.exit('torch._dynamo' in sys.modules)"]
    subprocess.run(command, check=True)
