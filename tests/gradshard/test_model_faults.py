"""Models that attacks cannot be right about are refused by every attack and by ``evaluate``, in one sentence."""

import pytest
import torch
from torch import nn

import gradshard as gs

ATTACKS = [gs.fgsm, gs.rand_fgsm, gs.iterative_fgsm, gs.mi_fgsm, gs.pgd, gs.cw]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 1, 3, 4, generator=generator), torch.randint(0, 5, (12,), generator=generator)


class Blind(nn.Sequential):
    """Lets no gradient through."""

    def forward(self, images):
        return super().forward(images.detach())


def classifier(*after, kind=nn.Sequential):
    torch.manual_seed(0)
    return kind(nn.Flatten(), nn.Linear(12, 5), *after).eval()


FAULTS = [
    (classifier(nn.Softmax(1)), "gives probabilities and not logits"),
    (classifier(kind=Blind), "lets no gradient through to the images"),
    (nn.Sequential(nn.ReLU(inplace=True), classifier()).eval(), "changes the images that it is given"),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize(("model", "told"), FAULTS, ids=["probabilities", "no gradient", "changes its input"])
def test_a_model_that_no_attack_moves_is_refused_and_not_called_robust(batch, model, told, attack):
    images, labels = batch
    before = images.clone()
    with pytest.raises(gs.GradshardError, match=f"the model {told}"):
        attack(model, images, labels, epsilon=0.1)
    with pytest.raises(gs.GradshardError, match=f"mine {told}"):
        gs.evaluate({"mine": model}, images, labels, attacks=[attack.name], epsilon=0.1)
    assert torch.equal(images, before)


@pytest.mark.parametrize("model", [FAULTS[0][0], FAULTS[1][0]], ids=["probabilities", "no gradient"])
def test_a_target_that_crafts_nothing_needs_no_gradient(batch, model):
    found = gs.evaluate({"t": model}, *batch, attacks=["fgsm"], epsilon=0.1, sources={"s": classifier()})
    assert [result.source for result in found] == ["", "s"]


@pytest.mark.parametrize("shape", [(12, 3, 4), (12, 12)], ids=["grey without a channel", "flat"])
def test_images_without_channels_are_refused(batch, shape):
    images, labels = batch
    with pytest.raises(gs.GradshardError, match=r"not \(N, C, H, W\): give grey ones a channel"):
        gs.pgd(classifier(), images.view(shape), labels, epsilon=0.1)
    with pytest.raises(gs.GradshardError, match=r"not \(N, C, H, W\)"):
        gs.evaluate({"mine": classifier()}, images.view(shape), labels, attacks=["pgd"], epsilon=0.1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": 2.0}, "steps is 2.0: give a whole number, 1 or more"),
        ({"restarts": 1.5}, "restarts is 1.5: give a whole number"),
        ({"epsilon": "8/255"}, "epsilon is '8/255': give one number for all images"),
        ({"epsilon": torch.full((12,), 0.1)}, "epsilon is tensor.*: give one number for all images"),
        ({"seed": 2**70}, "seed is 1180591620717411303424: give a whole number from 0 to"),
        ({"seed": 0.5}, "seed is 0.5: give a whole number"),
    ],
    ids=str,
)
def test_a_number_that_is_none_is_told_by_name(batch, given, told):
    with pytest.raises(gs.GradshardError, match=told):
        gs.pgd(classifier(), *batch, **{"epsilon": 0.1} | given)


def test_examples_hang_on_no_graph_of_the_caller(batch):
    images, labels = batch
    for attack in ATTACKS:
        assert not attack(classifier(), images.clone().requires_grad_(), labels, epsilon=0.1, steps=2).requires_grad
