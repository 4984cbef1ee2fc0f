"""Training methods against their papers' formulas, written out on a small linear model whose gradients are known."""

import pytest
import torch
from torch.nn import functional

from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch, RankSlice
from gradshard.pipeline.training.loss import BatchLoss
from gradshard.pipeline.training.methods.registry import make_method
from tests.helpers.linear_model import LinearModel

EPSILON = 0.1
SHAPE = (1, 3, 4)
CPU = torch.device("cpu")


def adversary(method, **settings):
    return Adversary(
        attack="fgsm",
        epsilon=EPSILON,
        alpha=0.0,
        clean_weight=0.5,
        sources=("self",),
        schedule="random",
        gradient="exact",
        policy="predicted",
        live_mode="train",
        directions={},
        method=method,
        settings=settings,
    )


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
    """What passed the model in one step, and the losses."""
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


@pytest.mark.parametrize(("method", "forward", "backward"), [("pgd_at", 4, 4)])
def test_every_pass_of_an_image_is_counted(model, method, forward, backward):
    given = batch()
    settings = {"steps": 3} if method in ("pgd_at", "trades") else {}
    _, losses, objective, _ = step(model, given, method, **settings)
    losses.total.backward()
    assert objective.passes.take_counts() == (7 * forward, 7 * backward)
    assert objective.passes.take_counts() == (0, 0)


@pytest.mark.parametrize("method", ["pgd_at"])
def test_two_ranks_perturb_as_one_does_and_their_parts_add_up(model, method):
    """Whatever is drawn is drawn for the whole batch."""
    whole, losses, _, _ = step(model, batch(), method)
    parts = [step(model, batch(part=RankSlice(7, rows)), method, ranks=2) for rows in (slice(0, 3), slice(3, 7))]
    for images, *ranks in zip(whole, *(passed for passed, *_ in parts), strict=True):
        assert torch.allclose(images, torch.cat(ranks), atol=1e-6)
    assert sum(part.total for _, part, _, _ in parts).item() / 2 == pytest.approx(losses.total.item(), rel=1e-5)
    assert sum(part.adversarial for _, part, _, _ in parts).item() == pytest.approx(losses.adversarial.item(), rel=1e-5)
