"""The objectives of the paper, against their definitions written out, on a small linear model."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.models.auxiliary import AuxiliaryHead
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch, RankSlice
from gradshard.pipeline.training.loss import BatchLoss
from gradshard.pipeline.training.methods.making import make_method
from tests.helpers.linear_model import LinearModel


def adversary(**changed):
    values = {
        "attack": "fgsm",
        "epsilon": 0.1,
        "alpha": 0.05,
        "clean_weight": 0.5,
        "sources": ("self", "A"),
        "schedule": "random",
        "gradient": "exact",
        "policy": "least_likely",
        "live_mode": "train",
        "directions": {"A": -1},
        "objective": "half",
    }
    return Adversary(**(values | changed))


@pytest.fixture
def model():
    generator = torch.Generator().manual_seed(0)
    return LinearModel(torch.randn(3, 12, generator=generator), torch.randn(3, generator=generator))


def batch(rows=7, *, epsilon=0.1, part=None, live=False):
    generator = torch.Generator().manual_seed(1)
    images = 0.2 + 0.6 * torch.rand(rows, 1, 3, 4, generator=generator)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    signs = torch.randint(0, 2, images.shape, generator=generator).mul(2).sub(1).float()
    part = part or RankSlice(rows, slice(0, rows))
    return Batch(images[part.rows], labels[part.rows], part, signs[part.rows], epsilon, live)


def objective(model, **changed):
    return losses_of(model, adversary(**changed))


def losses_of(model, robust, **changed):
    method = make_method(robust, shape=(), device=torch.device("cpu"))
    return BatchLoss(model, method, arithmetic="fp32", **changed)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_half_of_a_batch_is_replaced_and_weighed_as_kurakin_defines(model, weight):
    """(sum over clean J(x) + w sum over adversarial J(x_adv)) / (clean + w adversarial): 2017, equation 1."""
    given = batch()
    losses = objective(model, adversarial_weight=weight)(given)
    images = given.images.clone()
    images[::2] = perturb(given.images, given.signs, 0.1)[::2]
    each = functional.cross_entropy(model(images), given.labels, reduction="none")
    assert losses.total.item() == pytest.approx(
        (each[1::2].sum() + weight * each[::2].sum()).item() / (3 + weight * 4), rel=1e-6
    )
    assert losses.clean.item() == pytest.approx(each[1::2].mean().item(), rel=1e-6)
    assert losses.adversarial.item() == pytest.approx(each[::2].mean().item(), rel=1e-6)


def crafted(model, given):
    """The images of a batch, perturbed by the model itself."""
    grad, _ = input_gradient(model, given.images, given.labels, policy="least_likely")
    return perturb(given.images, -grad.sign(), 0.1)


@pytest.mark.parametrize("kind", ["half", "both"])
def test_labels_are_smoothed_for_clean_and_perturbed_images_but_not_for_the_attack(model, kind):
    given = batch(8, live=True)
    found = losses_of(model, adversary(objective=kind), smoothing=0.1)(given)
    clean, attacked = (
        functional.cross_entropy(model(images), given.labels, reduction="none", label_smoothing=0.1)
        for images in (given.images, crafted(model, given))
    )
    if kind == "half":
        clean, attacked = clean[1::2], attacked[::2]
    assert found.clean.item() == pytest.approx(clean.mean().item(), rel=1e-5)
    assert found.adversarial.item() == pytest.approx(attacked.mean().item(), rel=1e-5)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("kind", ["half", "both"])
def test_an_auxiliary_classifier_counts_by_its_weight_and_crafts_nothing(kind, live):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(100, 3))
    head, images = AuxiliaryHead("1", torch.Size((4, 5, 5)), 3, weight=0.4), torch.rand(8, 1, 5, 5)
    given = Batch(images, torch.arange(8) % 3, RankSlice(8, slice(0, 8)), torch.ones_like(images), 0.1, live)
    losses = losses_of(model, adversary(objective=kind), auxiliary=head)(given)
    losses.total.backward()

    perturbed = crafted(model, given) if live else perturb(images, given.signs, 0.1)
    mixed = torch.where(torch.arange(8).view(8, 1, 1, 1) % 2 == 0, perturbed, images)
    apart, together = [images, perturbed], [torch.cat([images, perturbed])]
    passes = [mixed] if kind == "half" else apart if live else together
    expected = 0.0
    for passing in passes:
        labels = given.labels.repeat(len(passing) // 8)
        own, beside = head(model, passing).unbind(dim=1)
        expected += (functional.cross_entropy(own, labels) + 0.4 * functional.cross_entropy(beside, labels)).item()
    assert losses.total.item() == pytest.approx(expected / len(passes), rel=1e-5)
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters() if parameter.dim() > 1)


@pytest.mark.parametrize("rows", [1, 2, 63, 64])
def test_exactly_half_of_the_rows_pass_perturbed(model, rows):
    seen = []
    model.register_forward_hook(lambda module, args, _: seen.append(args[0].detach().clone()))
    given = batch(rows)
    objective(model)(given)
    (images,) = seen
    changed = (images != given.images).flatten(1).any(1)
    assert changed.tolist() == [row % 2 == 0 for row in range(rows)]


def test_the_model_crafts_for_the_replaced_half_alone_towards_its_least_likely_class(model):
    seen = []
    model.register_forward_hook(lambda module, args, _: seen.append(args[0].detach().clone()))
    given = batch(8, live=True)
    objective(model)(given)
    crafted, mixed = seen
    assert torch.equal(crafted, given.images[::2])
    least = model(given.images[::2]).argmin(1)
    grad, _ = input_gradient(model, given.images[::2], least)
    assert torch.equal(mixed[::2], perturb(given.images[::2], -grad.sign(), 0.1))
    assert torch.equal(mixed[1::2], given.images[1::2])


@pytest.mark.parametrize("kind", ["both", "half"])
def test_epsilon_may_differ_by_example(model, kind):
    seen = []
    model.register_forward_hook(lambda module, args, _: seen.append(args[0].detach().clone()))
    epsilons = torch.linspace(0, 0.1, 6).view(-1, 1, 1, 1)
    given = batch(6, epsilon=epsilons)
    objective(model, objective=kind)(given)
    perturbed = perturb(given.images, given.signs, epsilons)
    expected = torch.cat([given.images, perturbed])
    if kind == "half":
        expected = torch.where((torch.arange(6) % 2 == 0).view(-1, 1, 1, 1), perturbed, given.images)
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize("kind", ["both", "half", "clean"])
@pytest.mark.parametrize("rows", [9, 10])
def test_the_parts_of_two_ranks_add_up_to_the_loss_of_the_whole_batch(model, kind, rows):
    adversarial = None if kind == "clean" else adversary(objective=kind, adversarial_weight=0.3)
    whole = losses_of(model, adversarial)(batch(rows))
    parts = [
        losses_of(model, adversarial, ranks=2)(batch(rows, part=RankSlice(rows, rank)))
        for rank in (slice(0, rows // 2), slice(rows // 2, rows))
    ]
    assert sum(part.total for part in parts).item() / 2 == pytest.approx(whole.total.item(), rel=1e-5)
    assert sum(part.clean for part in parts).item() == pytest.approx(whole.clean.item(), rel=1e-5)
    if kind != "clean":
        assert sum(part.adversarial for part in parts).item() == pytest.approx(whole.adversarial.item(), rel=1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_crafting_moves_no_running_statistics_and_leaves_the_mode(mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(12, 3))
    reference = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(12, 3))
    reference.load_state_dict(model.state_dict())
    given = batch(8, live=True)
    objective(model, live_mode=mode)(given)
    assert model.training
    seen = []
    reference.register_forward_hook(lambda module, args, _: seen.append(args[0]))
    objective(reference, live_mode=mode)(given)
    fresh = nn.BatchNorm2d(1)
    fresh(seen[1])
    assert torch.allclose(model[0].running_mean, fresh.running_mean)
    assert torch.allclose(model[0].running_var, fresh.running_var)
    assert model[0].num_batches_tracked == 1
