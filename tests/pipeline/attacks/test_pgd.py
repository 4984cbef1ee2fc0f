"""Attacks in many steps on a linear model, where the strongest perturbation is known."""

import pytest
import torch

from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.attacks.pgd import cw_margin, iterate_linf, mi_fgsm, pgd

EPSILON = 0.1


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(0)
    images = 0.2 + 0.6 * torch.rand(20, 1, 3, 4, generator=generator)
    return images, torch.randint(2, (20,), generator=generator), 2 * torch.rand(3, 20, 1, 3, 4, generator=generator) - 1


def best_hinge(model, images, labels):
    """Two classes: the hinge is linear, and each pixel's best place is an end of its interval."""
    with torch.no_grad():
        grad = model.linear.weight[1 - labels] - model.linear.weight[labels]
        return cw_margin(model(images), labels) + EPSILON * grad.abs().sum(1)


def attacks(model, images, labels, noise):
    return {
        "pgd": pgd(model, images, labels, epsilon=EPSILON, step=0.05, steps=8, noise=noise),
        "cw": pgd(model, images, labels, epsilon=EPSILON, step=0.05, steps=8, noise=noise, loss="hinge"),
        "mifgsm": mi_fgsm(model, images, labels, epsilon=EPSILON, steps=4),
    }


@pytest.mark.parametrize("name", ["pgd", "cw", "mifgsm"])
@pytest.mark.parametrize("seed", range(5))
def test_on_a_linear_model_the_best_perturbation_is_found(linear_model, examples, name, seed):
    model, (images, labels, noise) = linear_model(seed=seed), examples
    found = attacks(model, images, labels, noise)[name]
    with torch.no_grad():
        assert torch.allclose(cw_margin(model(found), labels), best_hinge(model, images, labels), atol=1e-5)


@pytest.mark.parametrize("name", ["pgd", "cw", "mifgsm"])
@pytest.mark.parametrize("seed", range(5))
def test_an_attack_stays_in_the_ball_and_in_range(linear_model, examples, name, seed):
    model, (_, labels, noise) = linear_model(classes=5, seed=seed), examples
    images = torch.rand(20, 1, 3, 4, generator=torch.Generator().manual_seed(seed))
    found = attacks(model, images, labels, noise)[name]
    assert (found - images).abs().max() <= EPSILON + 1e-6
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("loss", ["exact", "hinge"])
def test_an_end_where_logits_are_undefined_has_fooled_the_model(examples, loss):
    class Cracked(torch.nn.Module):
        def forward(self, images):
            dark = images.flatten(1).amin(1, keepdim=True) - 0.2  # no logarithm below
            return torch.cat([images.flatten(1)[:, :1] + 5, torch.zeros(len(images), 1)], 1) + 0 * dark.log()

    _, _, noise = examples
    images, labels = torch.full((20, 1, 3, 4), 0.4), torch.zeros(20, dtype=torch.int64)
    end = pgd(Cracked(), images, labels, epsilon=0.3, step=0.1, steps=3, noise=noise, loss=loss)
    assert Cracked()(end).isnan().any(1).all()


def test_more_restarts_are_never_weaker(linear_model, examples):
    model, (images, labels, noise) = linear_model(classes=4, seed=3), examples
    margins = []
    for restarts in (1, 2, 3):
        end = pgd(model, images, labels, epsilon=EPSILON, step=0.02, steps=2, noise=noise[:restarts])
        margins.append(cw_margin(model(end), labels))
    assert (margins[0] <= margins[1]).all()
    assert (margins[1] <= margins[2]).all()
    assert not torch.equal(margins[0], margins[2])


def test_one_step_without_momentum_from_the_image_is_fgsm(linear_model, examples):
    model, (images, labels, _) = linear_model(classes=4, seed=4), examples
    one = iterate_linf(model, images, labels, start=images, epsilon=EPSILON, step=EPSILON, steps=1)
    assert torch.allclose(one, fgsm(model, images, labels, epsilon=EPSILON), atol=1e-7)


def test_momentum_goes_on_by_the_gradients_it_has_summed():
    """One pixel, a gradient that turns at 0.05: the sum of unit gradients takes as long to turn as it was built up."""

    class Valley(torch.nn.Module):
        def forward(self, images):
            pixel = images.flatten(1)[:, :1]
            return torch.cat([-(pixel - 0.55).abs(), torch.zeros_like(pixel)], dim=1)

    image, label = torch.full((1, 1, 1, 1), 0.5), torch.tensor([1])
    options = {"start": image, "epsilon": 0.4, "step": 0.02, "steps": 4, "loss": "hinge"}
    assert iterate_linf(Valley(), image, label, **options).item() == pytest.approx(0.54, abs=0.021)
    assert iterate_linf(Valley(), image, label, **options, momentum=1.0).item() == pytest.approx(0.58, abs=1e-6)


def test_the_hinge_is_the_lead_of_the_best_other_class():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert cw_margin(logits, torch.tensor([0, 2])).tolist() == [-1.0, 4.0]


@pytest.mark.parametrize("name", ["pgd", "mifgsm"])
def test_of_two_classes_towards_one_is_away_from_the_other(linear_model, examples, name):
    model, (images, labels, noise) = linear_model(seed=2), examples
    options = {"epsilon": EPSILON, "steps": 3} | ({"step": 0.02, "noise": noise} if name == "pgd" else {})
    attack = {"pgd": pgd, "mifgsm": mi_fgsm}[name]
    away, towards = (
        attack(model, images, 1 - labels, **options),
        attack(model, images, labels, **options, targeted=True),
    )
    assert torch.equal(away, towards)
    assert not torch.equal(away, attack(model, images, labels, **options))


def test_more_restarts_come_never_less_close_to_a_target(linear_model, examples):
    model, (images, _, noise) = linear_model(classes=4, seed=3), examples
    target = model(images).argmin(1)
    margins = [
        cw_margin(model(end), target)
        for end in (
            pgd(model, images, target, epsilon=EPSILON, step=0.02, steps=2, noise=noise[:restarts], targeted=True)
            for restarts in (1, 3)
        )
    ]
    assert (margins[0] >= margins[1]).all()
    assert not torch.equal(*margins)
    assert (margins[1] < cw_margin(model(images), target)).all()
