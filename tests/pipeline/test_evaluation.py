import pytest
import torch
from torch import nn

from pipeline.attacks import Strength, fgsm
from pipeline.evaluation import block_noise, cells, evaluate_block, plan_craftings

STRENGTH = Strength(0.3, 0.05, 4)


class Counting(nn.Module):
    """A model that counts its forward passes, with and without a gradient."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.passes = inner, {True: 0, False: 0}

    def forward(self, images):
        self.passes[torch.is_grad_enabled()] += 1
        return self.inner(images)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(20, 1, 3, 4, generator=generator), torch.randint(0, 3, (20,), generator=generator)


def test_craftings_are_every_attack_from_every_source_by_every_gradient():
    attacks = {"fgsm": ["A", "B"], "ifgsm": ["B"]}
    planned = plan_craftings(attacks, ["exact", "cross_entropy"], STRENGTH)
    assert [(c.attack, c.gradient, c.source) for c in planned] == [
        ("fgsm", "exact", "A"),
        ("fgsm", "exact", "B"),
        ("fgsm", "cross_entropy", "A"),
        ("fgsm", "cross_entropy", "B"),
        ("ifgsm", "exact", "B"),
        ("ifgsm", "cross_entropy", "B"),
    ]


def test_every_cell_says_whether_its_target_got_each_example_right(linear_model, batch):
    images, labels = batch
    models = {name: linear_model(classes=3, seed=seed) for seed, name in enumerate("AB")}
    craftings = plan_craftings({"fgsm": ["A", "B"]}, ["exact"], STRENGTH)
    correct = evaluate_block(models, craftings, ["A", "B"], images, labels, noise=torch.ones_like(images))
    order = cells(craftings, ["A", "B"])
    assert correct.shape == (len(order), 20) == (6, 20)
    for cell, row in zip(order, correct, strict=True):
        examples = images
        if cell.crafting is not None:
            examples = fgsm(models[cell.crafting.source], images, labels, epsilon=0.3)
        assert torch.equal(row, models[cell.target](examples).argmax(1) == labels)


def test_an_attack_is_crafted_once_per_source_however_many_targets(linear_model, batch):
    images, labels = batch
    models = {name: Counting(linear_model(classes=3, seed=seed)) for seed, name in enumerate("ABC")}
    craftings = plan_craftings({"fgsm": ["A", "B"], "ifgsm": ["B"], "rand_fgsm": ["A"]}, ["exact"], STRENGTH)
    evaluate_block(models, craftings, ["A", "B", "C"], images, labels, noise=torch.ones_like(images))
    assert {name: model.passes[True] for name, model in models.items()} == {"A": 2, "B": 1 + 4, "C": 0}
    assert {model.passes[False] for model in models.values()} == {1 + len(craftings)}


def test_noise_is_a_function_of_seed_and_block():
    shape = torch.Size((3, 1, 4, 4))
    base = block_noise(shape, seed=1, block=2, device=torch.device("cpu"))
    assert torch.equal(base, block_noise(shape, seed=1, block=2, device=torch.device("cpu")))
    for seed, block in ((1, 3), (2, 2)):
        assert not torch.equal(base, block_noise(shape, seed=seed, block=block, device=torch.device("cpu")))
