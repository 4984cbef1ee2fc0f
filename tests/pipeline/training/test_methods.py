"""Training methods against their papers' formulas, written out on a small linear model whose gradients are known."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from gradshard.pipeline.training.data import Batch, RankSlice
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.loss import BatchLoss
from gradshard.pipeline.training.methods.making import make_method
from tests.helpers.adversaries import adversary_of
from tests.helpers.linear_model import LinearModel

EPSILON = 0.1
SHAPE = (1, 3, 4)
CPU = torch.device("cpu")


def adversary(method, **settings):
    return adversary_of(method, epsilon=EPSILON, **settings)


@pytest.fixture
def model():
    generator = torch.Generator().manual_seed(0)
    return LinearModel(torch.randn(3, 12, generator=generator), torch.randn(3, generator=generator))


def batch(rows=7, *, part=None):
    """Images of which some pixels are 0 or 1, so that clipping counts."""
    generator = torch.Generator().manual_seed(1)
    images = (1.2 * torch.rand(rows, *SHAPE, generator=generator) - 0.1).clamp(0, 1)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    part = part or RankSlice(rows, slice(0, rows))
    return Batch(images[part.rows], labels[part.rows], part, epsilon=EPSILON, live=True)


def step(model, given, name, *, seed=5, ranks=1, **settings):
    """Return what passed the model in one step, and the losses."""
    passed = []
    handle = model.register_forward_hook(lambda module, args, _: passed.append(args[0].detach().clone()))
    method = make_method(adversary(name, **settings), shape=(given.part.total, *SHAPE), device=CPU)
    objective = BatchLoss(model, method, arithmetic="fp32", ranks=ranks)
    torch.manual_seed(seed)
    losses = objective(given)
    handle.remove()
    return passed, losses, objective, method


def noise(given, *, seed=5):
    """The first uniform draws of a step."""
    torch.manual_seed(seed)
    return 2 * torch.rand(given.images.shape) - 1


def gradient_sign(model, images, labels):
    """The sign of the cross-entropy's gradient: (softmax - onehot) W, in float64."""
    weight, bias = model.linear.weight.detach().double(), model.linear.bias.detach().double()
    shares = (images.double().flatten(1) @ weight.T + bias).softmax(1)
    return ((shares - functional.one_hot(labels, 3)) @ weight).sign().view_as(images).float()


def within(candidate, images):
    return candidate.clamp(images - EPSILON, images + EPSILON).clamp(0, 1)


def test_pgd_at_climbs_from_a_random_start_within_the_ball(model):
    given = batch()
    passed, losses, _, _ = step(model, given, "pgd_at", steps=4, step_size=0.6)
    expected = within(given.images + EPSILON * noise(given), given.images)
    for images in passed[:-1]:
        assert torch.allclose(images, expected, atol=1e-7)
        expected = within(images + 0.6 * EPSILON * gradient_sign(model, images, given.labels), given.images)
    assert len(passed) == 5
    assert torch.allclose(passed[-1], expected, atol=1e-7)
    assert losses.total.item() == pytest.approx(functional.cross_entropy(model(expected), given.labels).item())
    assert losses.clean is None


def test_ten_steps_of_pgd_at_are_a_quarter_of_epsilon_each_if_nothing_is_said(model):
    given = batch()
    images = step(model, given, "pgd_at")[0]
    inside = (images[0] - given.images).abs() < 0.7 * EPSILON
    inside &= (images[0] > 0.05) & (images[0] < 0.95)
    assert torch.allclose((images[1] - images[0]).abs()[inside], torch.tensor(0.25 * EPSILON), atol=1e-6)
    assert len(images) == 11


@pytest.mark.parametrize("policy", ["true", "predicted", "least_likely"])
def test_an_ensemble_whose_own_share_is_pgd_climbs_about_the_label_of_the_clean_image(model, policy):
    given = batch()
    settings = {"attack": "pgd", "policy": policy, "steps": 4, "step_size": 0.6}
    passed, losses, _, _ = step(model, given, "ensemble", **settings)
    *asked, first, second, third, fourth, both = passed
    logits = model(given.images)
    labels = {"true": given.labels, "predicted": logits.argmax(1), "least_likely": logits.argmin(1)}[policy]
    way = -1 if policy == "least_likely" else 1
    assert [torch.equal(images, given.images) for images in asked] == [True] * (policy != "true")
    expected = within(given.images + EPSILON * noise(given), given.images)
    for images in (first, second, third, fourth):
        assert torch.allclose(images, expected, atol=1e-7)
        expected = within(images + way * 0.6 * EPSILON * gradient_sign(model, images, labels), given.images)
    assert torch.allclose(both, torch.cat([given.images, expected]), atol=1e-7)
    clean, adversarial = (functional.cross_entropy(model(images), given.labels) for images in both.split(7))
    assert losses.total.item() == pytest.approx((0.5 * clean + 0.5 * adversarial).item())


def test_an_ensemble_whose_own_share_is_pgd_climbs_within_each_images_epsilon(model):
    epsilons = torch.linspace(0, EPSILON, 7).view(-1, 1, 1, 1)
    given = replace(batch(), epsilon=epsilons)
    both = step(model, given, "ensemble", attack="pgd", steps=4)[0][-1]
    moved = (both[7:] - given.images).abs()
    assert (moved <= epsilons + 1e-7).all()
    inside = (given.images > EPSILON) & (given.images < 1 - EPSILON)
    assert torch.allclose(moved[inside], epsilons.expand_as(moved)[inside], atol=1e-6)


def test_an_ensemble_whose_own_share_is_pgd_perturbs_the_replaced_images_as_it_would_all(model):
    """With the objective half it crafts for every second image alone, from the same starts."""
    given = batch()
    settings = {"attack": "pgd", "steps": 4}
    whole = step(model, given, "ensemble", **settings)[0][-1][7:]
    half = replace(adversary("ensemble", **settings), objective="half")
    passed = []
    model.register_forward_hook(lambda module, args, _: passed.append(args[0].detach().clone()))
    method = make_method(half, shape=given.images.shape, device=CPU)
    torch.manual_seed(5)
    BatchLoss(model, method, arithmetic="fp32")(given)
    assert [len(images) for images in passed] == [4] * 5 + [7]
    assert torch.allclose(passed[-1][::2], whole[::2], atol=1e-7)
    assert torch.equal(passed[-1][1::2], given.images[1::2])


def test_fast_at_makes_one_step_of_five_quarters_of_epsilon_and_is_clipped_to_the_ball(model):
    given = batch()
    (moved, perturbed), losses, _, _ = step(model, given, "fast_at")
    assert torch.allclose(moved, within(given.images + EPSILON * noise(given), given.images), atol=1e-7)
    stepped = moved + 1.25 * EPSILON * gradient_sign(model, moved, given.labels)
    assert torch.allclose(perturbed, within(stepped, given.images), atol=1e-7)
    assert losses.total.item() == pytest.approx(functional.cross_entropy(model(perturbed), given.labels).item())


def test_n_fgsm_steps_from_noise_of_twice_epsilon_and_is_not_clipped_to_the_ball(model):
    given = batch()
    (moved, perturbed), losses, _, _ = step(model, given, "n_fgsm")
    assert torch.allclose(moved, (given.images + 2 * EPSILON * noise(given)).clamp(0, 1), atol=1e-7)
    stepped = moved + EPSILON * gradient_sign(model, moved, given.labels)
    assert torch.allclose(perturbed, stepped.clamp(0, 1), atol=1e-7)
    assert (perturbed - given.images).abs().max() > 2 * EPSILON
    assert losses.total.item() == pytest.approx(functional.cross_entropy(model(perturbed), given.labels).item())


def test_free_at_carries_its_perturbation_from_step_to_step_and_from_batch_to_batch(model):
    given = batch()
    (first,), losses, objective, method = step(model, given, "free_at", step_size=0.75)
    assert torch.equal(first, given.images)
    assert ((first == 0) | (first == 1)).any()
    torch.autograd.backward(losses.total, inputs=[*model.parameters(), losses.inputs])
    method.remember(given, losses, Rank())
    carried = 0.75 * EPSILON * gradient_sign(model, first, given.labels)
    assert torch.allclose(method.state()["carried"], carried, atol=1e-7)
    smaller = batch(5)
    losses = objective(smaller)
    torch.autograd.backward(losses.total, inputs=[*model.parameters(), losses.inputs])
    method.remember(smaller, losses, Rank())
    second = gradient_sign(model, (smaller.images + carried[:5]).clamp(0, 1), smaller.labels)
    expected = (carried[:5] + 0.75 * EPSILON * second).clamp(-EPSILON, EPSILON)
    assert torch.allclose(method.state()["carried"], torch.cat([expected, carried[5:]]), atol=1e-7)


def test_free_at_moves_the_parameters_by_the_backward_pass_that_moves_the_images(model):
    given = batch()
    _, losses, objective, _ = step(model, given, "free_at")
    torch.autograd.backward(losses.total, inputs=[*model.parameters(), losses.inputs])
    (expected,) = torch.autograd.grad(
        functional.cross_entropy(model(given.images), given.labels), [model.linear.weight]
    )
    assert torch.allclose(model.linear.weight.grad, expected, atol=1e-6)
    assert objective.passes.take_counts() == (7, 7)


def test_trades_climbs_the_divergence_and_weighs_it_against_the_clean_loss(model):
    given = batch()
    passed, losses, _, _ = step(model, given, "trades", steps=3, step_size=0.5, beta=4.0)
    still, *climbed, clean, perturbed = passed
    assert torch.equal(still, given.images)
    assert torch.equal(clean, given.images)
    torch.manual_seed(5)
    expected = within(given.images + 0.001 * torch.randn(given.images.shape), given.images)
    shares = model(given.images).double().softmax(1)
    for images in climbed:
        assert torch.allclose(images, expected, atol=1e-7)
        # KL(p || q) has with respect to the logits of q the gradient q - p.
        grad = (model(images).double().softmax(1) - shares) @ model.linear.weight.double()
        expected = within(images + 0.5 * EPSILON * grad.sign().view_as(images).float(), given.images)
    assert len(climbed) == 3
    # Single precision loses the sign of a divergence near 0, as at the start.
    assert (perturbed - expected).abs().lt(1e-7).float().mean() > 0.99
    moved = model(perturbed).double().softmax(1)
    kl = (shares * (shares / moved).log()).sum(1).mean().item()
    assert losses.clean.item() == pytest.approx(functional.cross_entropy(model(given.images), given.labels).item())
    assert losses.adversarial.item() == pytest.approx(kl, rel=1e-4)
    assert losses.total.item() == pytest.approx(losses.clean.item() + 4 * kl, rel=1e-4)


def test_the_gradient_of_trades_goes_through_both_outputs(model):
    given = batch()
    passed, losses, _, _ = step(model, given, "trades")
    losses.total.backward()
    logits, moved = model(given.images), model(passed[-1])
    kl = functional.kl_div(moved.log_softmax(1), logits.softmax(1), reduction="batchmean")
    (expected,) = torch.autograd.grad(functional.cross_entropy(logits, given.labels) + 6 * kl, [model.linear.weight])
    assert torch.allclose(model.linear.weight.grad, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "settings", "forward", "backward"),
    [
        ("ensemble", {}, 2, 3),
        ("ensemble", {"attack": "pgd", "policy": "true", "steps": 3}, 5, 5),
        ("ensemble", {"attack": "pgd", "steps": 3}, 6, 5),
        ("fast_at", {}, 2, 2),
        ("n_fgsm", {}, 2, 2),
        ("free_at", {}, 1, 1),
        ("pgd_at", {"steps": 3}, 4, 4),
        ("trades", {"steps": 3}, 6, 5),
    ],
)
def test_every_pass_of_an_image_is_counted(model, method, settings, forward, backward):
    given = batch()
    _, losses, objective, _ = step(model, given, method, **settings)
    losses.total.backward()
    assert objective.passes.take_counts() == (7 * forward, 7 * backward)
    assert objective.passes.take_counts() == (0, 0)


def test_a_step_on_stored_signs_costs_no_pass_to_craft(model):
    given = replace(batch(), signs=torch.ones(7, *SHAPE), live=False)
    _, losses, objective, _ = step(model, given, "ensemble")
    losses.total.backward()
    assert objective.passes.take_counts() == (14, 14)


@pytest.mark.parametrize("method", ["fast_at", "n_fgsm", "free_at", "pgd_at", "trades"])
def test_two_ranks_perturb_as_one_does_and_their_parts_add_up(model, method):
    """Whatever is drawn is drawn for the whole batch."""
    whole, losses, _, _ = step(model, batch(), method)
    parts = [step(model, batch(part=RankSlice(7, rows)), method, ranks=2) for rows in (slice(0, 3), slice(3, 7))]
    for images, *ranks in zip(whole, *(passed for passed, *_ in parts), strict=True):
        assert (images - torch.cat(ranks)).abs().lt(1e-6).float().mean() > 0.98
    assert sum(part.total for _, part, _, _ in parts).item() / 2 == pytest.approx(losses.total.item(), rel=1e-4)
    assert sum(part.adversarial for _, part, _, _ in parts).item() == pytest.approx(losses.adversarial.item(), rel=1e-4)


def test_two_ranks_of_an_ensemble_whose_own_share_is_pgd_perturb_as_one_does(model):
    whole = step(model, batch(), "ensemble", attack="pgd")[0][-1][7:]
    parts = [
        step(model, batch(part=RankSlice(7, rows)), "ensemble", ranks=2, attack="pgd")[0][-1]
        for rows in (slice(0, 3), slice(3, 7))
    ]
    perturbed = torch.cat([images[len(images) // 2 :] for images in parts])
    assert (whole - perturbed).abs().lt(1e-6).float().mean() > 0.98
