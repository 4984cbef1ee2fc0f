import pytest
import torch
from torch import nn

from gradshard.pipeline.attacks.crafting import sample_noise
from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.attacks.registry import ATTACKS, AttackConfig
from gradshard.pipeline.evaluation.error_matrix import (
    block_draws,
    evaluate_block,
    plan_cases,
    plan_craftings,
    true_label_ranks,
    worst_cases,
)
from gradshard.pipeline.gradients.microbatches import rows_at_once

STRENGTH = AttackConfig(0.3, 0.05, 4)


class Counting(nn.Module):
    """A model that counts its forward passes, with and without a gradient."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.passes = inner, {True: 0, False: 0}

    def forward(self, images):
        self.passes[torch.is_grad_enabled()] += 1
        return self.inner(images)


def counting(images, **models):
    """Let models count their passes from now on: how much one takes of the memory was measured before."""
    found = {name: Counting(model) for name, model in models.items()}
    rows_at_once(images.shape[1:], images.device, *found.values())
    for model in found.values():
        model.passes = {True: 0, False: 0}
    return found


def draws(images):
    return sample_noise(images.shape, 2, generator=torch.Generator().manual_seed(1))


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


def test_a_worst_case_is_over_the_clean_image_and_every_attack_with_a_gradient():
    craftings = plan_craftings({"fgsm": ["A", "B"]}, ["exact", "cross_entropy"], STRENGTH)
    planned = plan_cases(craftings, ["A", "R"])
    assert worst_cases(planned) == [
        ("A", "exact", [0, 2, 4]),
        ("R", "exact", [1, 3, 5]),
        ("A", "cross_entropy", [0, 6, 8]),
        ("R", "cross_entropy", [1, 7, 9]),
    ]


def test_every_cell_ranks_each_true_label(linear_model, batch):
    images, labels = batch
    models = {name: linear_model(classes=3, seed=seed) for seed, name in enumerate("AB")}
    craftings = plan_craftings({"fgsm": ["A", "B"]}, ["exact"], STRENGTH)
    ranks = evaluate_block(models, plan_cases(craftings, ["A", "B"]), images, labels, draws=draws(images))
    order = plan_cases(craftings, ["A", "B"])
    assert ranks.shape == (len(order), 20) == (6, 20)
    for cell, row in zip(order, ranks, strict=True):
        examples = images
        if cell.crafting is not None:
            examples = fgsm(models[cell.crafting.source], images, labels, epsilon=0.3)
        logits = models[cell.target](examples)
        assert torch.equal(row < 1, logits.argmax(1) == labels)
        assert torch.equal(row < 2, (logits.topk(2).indices == labels.unsqueeze(1)).any(1))
        assert (row < 3).all()


def test_a_tie_and_a_logit_that_is_no_number_count_against_the_model():
    nan = float("nan")
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0], [1.0, nan, 0.0], [nan, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert true_label_ranks(logits, torch.tensor([0, 0, 0, 0, 0])).tolist() == [0, 1, 1, 2, 2]


def test_the_papers_attacks_may_step_towards_the_least_likely_class(linear_model, batch):
    images, labels = batch
    models = {"A": linear_model(classes=3)}
    attacks = {"fgsm": ["A"], "rand_fgsm": ["A"], "ifgsm": ["A"], "pgd": ["A"]}
    craftings = plan_craftings(attacks, ["exact"], STRENGTH, label="least_likely")
    assert [crafting.label for crafting in craftings] == ["least_likely"] * 3 + ["true"]
    planned = plan_cases(craftings, ["A"])
    ranks = evaluate_block(models, planned, images, labels, draws=draws(images))
    with torch.no_grad():
        least = models["A"](images).argmin(1)
    examples = fgsm(models["A"], images, least, epsilon=0.3, targeted=True)
    assert torch.equal(ranks[1], true_label_ranks(models["A"](examples), labels))


def test_what_the_paper_measures_on_all_images_is_known():
    planned = plan_cases(plan_craftings({"fgsm": ["A", "B"], "pgd": ["A"]}, ["exact"], STRENGTH), ["A", "B"])
    own = [
        (cell.target, cell.crafting and (cell.crafting.source, cell.crafting.attack)) for cell in planned if cell.own
    ]
    assert own == [("A", None), ("B", None), ("A", ("A", "fgsm")), ("B", ("B", "fgsm"))]


def test_an_attack_is_crafted_once_per_source_however_many_targets(linear_model, batch):
    images, labels = batch
    models = counting(images, **{name: linear_model(classes=3, seed=seed) for seed, name in enumerate("ABC")})
    craftings = plan_craftings({"fgsm": ["A", "B"], "ifgsm": ["B"], "rand_fgsm": ["A"]}, ["exact"], STRENGTH)
    evaluate_block(models, plan_cases(craftings, ["A", "B", "C"]), images, labels, draws=draws(images))
    assert {name: model.passes[True] for name, model in models.items()} == {"A": 2, "B": 1 + 4, "C": 0}
    assert {model.passes[False] for model in models.values()} == {1 + len(craftings)}


def test_an_attack_with_a_loss_of_its_own_is_crafted_once_for_all_gradients(linear_model, batch):
    images, labels = batch
    models = counting(images, A=linear_model(classes=3))
    strength = AttackConfig(0.1, 0.02, 3, 4, 2)
    craftings = plan_craftings({"cw": ["A"], "pgd": ["A"]}, ["exact", "cross_entropy"], strength)
    rows = evaluate_block(models, plan_cases(craftings, ["A"]), images, labels, draws=draws(images))
    assert models["A"].passes[True] == (1 + 2) * strength.restarts * strength.pgd_steps
    assert [(cell.crafting.attack, cell.crafting.gradient) for cell in plan_cases(craftings, ["A"])[1:3]] == [
        ("cw", "exact"),
        ("cw", "cross_entropy"),
    ]
    assert torch.equal(rows[1], rows[2])
    assert not torch.equal(rows[1], rows[0])


def test_the_random_part_is_a_function_of_seed_and_block():
    def drawn(seed, block):
        return block_draws(torch.Size((3, 1, 4, 4)), 2, seed=seed, block=block, device=torch.device("cpu"))

    base, same = drawn(1, 2), drawn(1, 2)
    assert torch.equal(base.signs, same.signs)
    assert torch.equal(base.starts, same.starts)
    assert base.seed == same.seed
    assert base.starts.shape == (2, 3, 1, 4, 4)
    # A time stamp, as large a seed as there is.
    for other in (drawn(1, 3), drawn(2, 2), drawn(20261201123456, 2), drawn(2**63 - 1, 2)):
        assert not torch.equal(base.signs, other.signs)
        assert not torch.equal(base.starts, other.starts)
        assert base.seed != other.seed


def test_results_do_not_depend_on_the_batches_of_a_block(linear_model, batch):
    images, labels = batch
    models = {name: linear_model(classes=3, seed=seed) for seed, name in enumerate("AB")}
    # AutoAttack draws for a batch as a whole, of the images that are left; batches are always cut the same way.
    attacks = {name: ["A", "B"] for name in ATTACKS if name != "autoattack"}
    craftings = plan_craftings(attacks, ["exact", "cross_entropy"], AttackConfig(0.1, 0.02, 3, 4, 2))
    drawn = draws(images)
    whole = evaluate_block(models, plan_cases(craftings, ["A", "B"]), images, labels, draws=drawn)
    parts = [
        evaluate_block(models, plan_cases(craftings, ["A", "B"]), images[at], labels[at], draws=drawn[at])
        for at in (slice(0, 7), slice(7, 20))
    ]
    assert torch.equal(whole, torch.cat(parts, dim=1))


def test_a_worst_case_is_over_the_clean_image_and_every_attack_of_its_gradient():
    craftings = plan_craftings({"fgsm": ["A", "B"], "pgd": ["A"]}, ["exact", "cross_entropy"], STRENGTH)
    planned = plan_cases(craftings, ["A", "B"])
    found = worst_cases(planned)
    assert [(target, gradient) for target, gradient, _ in found] == [
        *(("A", "exact"), ("B", "exact"), ("A", "cross_entropy"), ("B", "cross_entropy")),
    ]
    for target, gradient, members in found:
        inside = [planned[index] for index in members]
        assert len(inside) == 4
        assert {cell.target for cell in inside} == {target}
        assert sum(cell.crafting is None for cell in inside) == 1
        assert {cell.crafting.gradient for cell in inside if cell.crafting} == {gradient}
