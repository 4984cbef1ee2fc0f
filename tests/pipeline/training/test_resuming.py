"""A run resumed is the run undisturbed, to the byte."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gradshard.pipeline.models.auxiliary import AuxiliaryHead
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import Trainer
from tests.helpers.trainers import CPU, adversary, equal, parameters, with_random_steps


@pytest.mark.parametrize(
    "robust",
    [
        None,
        adversary(),
        adversary(schedule="loss_weighted", weights={"A": 2.0}),
        adversary(schedule="top_k", top_k=2),
        with_random_steps(sources=("self", "R")),
    ],
    ids=["clean", "robust", "loss_weighted", "top_k", "copies of random steps"],
)
@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_a_resumed_run_ends_with_the_same_bytes(start, robust, arithmetic):
    whole, reader = start(robust=robust, arithmetic=arithmetic)
    states = {}
    for step in whole.steps(reader):
        if step.record:
            states[step.number] = {name: tensor.clone() for name, tensor in whole.state().items()}
    assert sorted(states) == [11, 22]
    resumed, reader = start(robust=robust, arithmetic=arithmetic)
    torch.manual_seed(99)
    resumed.load_state(states[11])
    assert resumed.step == 11
    assert [step.number for step in resumed.steps(reader)] == list(range(12, 23))
    assert equal(parameters(whole), parameters(resumed))
    assert resumed.live_steps == whole.live_steps


def test_an_average_is_resumed_to_the_same_bytes_and_changes_no_step(start):
    plain, reader = start(robust=adversary())
    list(plain.steps(reader))
    whole, reader = start(robust=adversary(), average=0.9)
    states = {step.number: {n: t.clone() for n, t in whole.state().items()} for step in whole.steps(reader)}
    resumed, reader = start(robust=adversary(), average=0.9)
    resumed.load_state(states[11])
    list(resumed.steps(reader))
    assert plain.result is plain.model
    assert equal(parameters(plain), parameters(whole))
    average = dict(whole.result.named_parameters())
    assert equal(average, dict(resumed.result.named_parameters()))
    assert not equal(average, parameters(whole))


@pytest.mark.parametrize("method", ["fast_at", "n_fgsm", "free_at", "pgd_at", "trades"])
@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_a_resumed_run_of_every_method_ends_with_the_same_bytes(start, method, arithmetic):
    """Free-AT goes on in the middle of a batch's replays, with the perturbation that it carries."""
    settings = {"steps": 2} if method in ("pgd_at", "trades") else {}
    robust = adversary(sources=("self",), method=method, settings=settings)
    run = {"robust": robust, "arithmetic": arithmetic, "batch": 128, "epochs": 2}
    run |= {"replays": 4, "epochs": 4} if method == "free_at" else {}
    whole, reader = start(**run)
    for step in whole.steps(reader):
        if step.number == 6:
            state = {name: tensor.clone() for name, tensor in whole.state().items()}
    resumed, reader = start(**run)
    torch.manual_seed(99)
    resumed.load_state(state)
    assert [step.number for step in resumed.steps(reader)] == list(range(7, whole.step + 1))
    assert equal(parameters(whole), parameters(resumed))
    assert resumed.passes == whole.passes > (0, 0)


def test_an_auxiliary_classifier_is_resumed_to_the_same_bytes_and_is_not_published(start):
    def make():
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 4, 6, stride=3)
        model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
        head = AuxiliaryHead("1", torch.Size((4, 8, 8)), 10, weight=0.4)
        (given, reader), chosen = start(), Optimization("sgd", 0.05, momentum=0.9, weight_decay=1e-4)
        run = replace(given.run, optimization=chosen, average=0.9, smoothing=0.1)
        return Trainer(model, run, device=CPU, arithmetic="fp32", auxiliary=head), reader, head

    whole, reader, head = make()
    before = head.state_dict()["_layers.1.weight"].clone()
    states = {step.number: {n: t.clone() for n, t in whole.state().items()} for step in whole.steps(reader)}
    resumed, reader, _ = make()
    resumed.load_state(states[11])
    list(resumed.steps(reader))
    assert equal(whole.state(), resumed.state())
    assert not torch.equal(head.state_dict()["_layers.1.weight"], before)
    assert whole.result.state_dict().keys() == {"0.weight", "0.bias", "3.weight", "3.bias"}
