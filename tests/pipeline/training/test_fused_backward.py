"""One backward pass for loss and perturbation, against one for each."""

import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.gradients.input_gradient import gradient_through
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch, RankSlice
from gradshard.pipeline.training.fused_backward import grads_on_the_way, row_by_row
from gradshard.pipeline.training.loss import BatchLoss
from gradshard.pipeline.training.methods.making import make_method

ROWS, SHAPE = 16, (1, 28, 28)


class Opaque(nn.Module):
    """The same model, of which nothing is known."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images)


def adversary(**changed):
    values = {
        "attack": "fgsm",
        "epsilon": 0.1,
        "alpha": 0.05,
        "clean_weight": 0.3,
        "sources": ("self",),
        "schedule": "random",
        "gradient": "exact",
        "policy": "predicted",
        "live_mode": "train",
        "directions": {},
    }
    return Adversary(**(values | changed))


def batch(model, *, wrong, seed):
    """Images of whose labels the model, dropping what it drops for the seed, gets all right but for so many."""
    images = 0.2 + 0.6 * torch.rand(ROWS, *SHAPE, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    labels = model(images).argmax(1)
    labels[2 : 2 + wrong] = (labels[2 : 2 + wrong] + 3) % 10
    return Batch(images, labels, RankSlice(ROWS, slice(0, ROWS)), epsilon=0.1, live=True)


def trained(model, given, *, seed, **changed):
    """What passes the model in a step, the parameters' gradients after it, and the losses."""
    passed = []
    model.zero_grad()
    handle = model.register_forward_hook(lambda module, args, _: passed.append(args[0].detach().clone()))
    torch.manual_seed(seed)
    method = make_method(adversary(**changed), shape=given.images.shape, device=torch.device("cpu"))
    losses = BatchLoss(model, method, arithmetic="fp32")(given)
    losses.total.backward()
    handle.remove()
    return passed, [parameter.grad.clone() for parameter in model.parameters()], losses


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("wrong", [0, 3, 4])
@pytest.mark.parametrize("gradient", ["exact", "cross_entropy"])
@pytest.mark.parametrize("architecture", ["A", "B", "D"])
def test_one_backward_pass_trains_and_perturbs_as_two_do(architecture, gradient, wrong, seed):
    model = models.create_model(architecture, SHAPE, 10, seed=seed).train()
    given = batch(model, wrong=wrong, seed=seed)
    passed, gradients, losses = trained(model, given, seed=seed, gradient=gradient)
    expected, reference, of_two = trained(Opaque(model), given, seed=seed, gradient=gradient)
    assert [len(images) for images in passed] == [ROWS, *([wrong] if wrong else []), ROWS]
    assert len(expected) == 2
    # Signs differ where rounding decides; a row that is perturbed the wrong way differs in half of its pixels.
    assert (passed[-1] == expected[-1]).flatten(1).float().mean(1).min() > 0.99
    assert losses.total.item() == pytest.approx(of_two.total.item(), rel=1e-3)
    assert losses.clean.item() == pytest.approx(of_two.clean.item(), rel=1e-6)
    for one, other in zip(gradients, reference, strict=True):
        assert torch.linalg.vector_norm(one - other) < 1e-2 * torch.linalg.vector_norm(other)


def test_the_clean_part_of_the_gradient_is_that_of_the_clean_loss():
    """At epsilon 0 nothing depends on signs, so both ways agree to rounding."""
    model = models.create_model("A", SHAPE, 10, seed=2).train()
    given = batch(model, wrong=2, seed=2)
    still = Batch(given.images, given.labels, given.part, epsilon=0.0, live=True)
    _, gradients, _ = trained(model, still, seed=2)
    _, reference, _ = trained(Opaque(model), still, seed=2)
    for one, other in zip(gradients, reference, strict=True):
        assert torch.linalg.vector_norm(one - other) < 1e-5 * torch.linalg.vector_norm(other)


@pytest.mark.parametrize("changed", [{"policy": "least_likely"}, {"clean_weight": 0.0}], ids=str)
def test_where_one_backward_pass_does_not_serve_there_are_two(changed):
    model = models.create_model("D", SHAPE, 10, seed=0).train()
    given = batch(model, wrong=0, seed=0)
    passed, gradients, _ = trained(model, given, seed=0, **changed)
    expected, reference, _ = trained(Opaque(model), given, seed=0, **changed)
    assert len(passed) == 2
    assert torch.equal(passed[1], expected[1])
    assert all(torch.equal(one, other) for one, other in zip(gradients, reference, strict=True))


def test_with_many_rows_to_pass_again_there_are_two_backward_passes():
    model = models.create_model("D", SHAPE, 10, seed=0).train()
    passed, _, _ = trained(model, batch(model, wrong=5, seed=0), seed=0)
    assert [len(images) for images in passed] == [ROWS, ROWS]


def test_an_example_of_any_confidence_gets_the_signs_of_its_exact_gradient(linear_model):
    model = linear_model(classes=3, scale=1000.0)
    images = torch.rand(8, 1, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    labels = model(images).argmax(1)
    grad, _ = gradient_through(model(images), images, labels, gradient="exact", policy="true")
    found = grads_on_the_way(model(images), images, labels, model, gradient="exact", weight=0.5)
    assert (grad != 0).all()
    assert torch.equal(found.sign(), grad.sign())


def test_only_what_is_known_to_treat_rows_by_themselves_goes_back_once():
    assert all(row_by_row(models.create_model(name, SHAPE, 10, seed=0)) for name in "ABCD")
    assert not row_by_row(models.create_model("small_vgg", (3, 32, 32), 10, seed=0))
    for layer in (nn.BatchNorm2d(1), nn.Dropout(0.5), Opaque(nn.Linear(2, 2))):
        assert not row_by_row(nn.Sequential(nn.Conv2d(1, 1, 3), layer))
