import copy

import pytest
import torch

from gradshard.pipeline.analysis.gradient_accuracy import gradient_norms, sign_errors
from gradshard.pipeline.analysis.loss_surface import fooling_directions, loss_plane


@pytest.fixture
def images():
    return torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("seed", range(5))
def test_the_norm_is_that_of_the_cross_entropys_gradient(linear_model, images, seed):
    """Two classes: J = softplus(z_other - z_label), so its gradient is sigmoid(u) (w_other - w_label)."""
    model = linear_model(seed=seed)
    labels = torch.arange(40) % 2
    weight = model.linear.weight.detach().double()
    logits = model(images).detach().double()
    u = logits.gather(1, 1 - labels[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
    expected = u.sigmoid() * (weight[1] - weight[0]).norm()
    norms = gradient_norms(model, images, labels)
    assert torch.allclose(norms.exact, expected, rtol=1e-5)
    assert torch.allclose(norms.cross_entropy, expected, rtol=1e-4)


def test_exact_norms_keep_their_digits_where_cross_entropy_rounds_to_zero(linear_model, images):
    model = linear_model(seed=1, scale=200.0)
    labels = model(images).argmax(1)
    norms = gradient_norms(model, images, labels)
    gone = norms.cross_entropy == 0
    assert gone.sum() > 5
    assert (norms.exact[gone] > 0).any()


def test_signs_are_wrong_where_cross_entropy_saturates_and_exact_ones_are_not(linear_model, images):
    model = linear_model(seed=1, scale=200.0)
    found = sign_errors(model, copy.deepcopy(model).double(), images, model(images).argmax(1))
    assert found.exact.max() == 0
    assert found.zero_rows.sum() > 5
    assert (found.cross_entropy[found.zero_rows] == 1).all()


def test_the_plane_holds_the_loss_at_each_of_its_points(linear_model, images):
    model, source = linear_model(seed=0), linear_model(seed=7)
    label, steps = torch.tensor([1]), torch.tensor([0.0, 0.1, 0.4])
    plane = loss_plane(model, source, images[:1], label, steps)
    own = (model.linear.weight[0] - model.linear.weight[1]).sign().view(1, 1, 3, 4)
    other = (source.linear.weight[0] - source.linear.weight[1]).sign().view(1, 1, 3, 4)
    for row, first in enumerate(steps):
        for column, second in enumerate(steps):
            loss = torch.nn.functional.cross_entropy(
                model((images[:1] + first * own + second * other).clamp(0, 1)), label
            )
            assert plane[row, column] == pytest.approx(loss.item(), rel=1e-4)
    assert plane[0].min() < plane[2].min(), "the loss climbs along the model's own gradient"


def test_images_that_the_sources_example_fools_are_told(linear_model, images):
    model, total = linear_model(seed=0), 0
    labels = model(images).argmax(1)
    labels[:5] = 1 - labels[:5]
    direction = torch.where(labels == 1, 1.0, -1.0).view(-1, 1, 1, 1)
    for seed in range(1, 9):
        source = linear_model(seed=seed)
        step = (source.linear.weight[0] - source.linear.weight[1]).sign().view(1, 1, 3, 4)
        adversarial = (images + 0.5 * direction * step).clamp(0, 1)
        expected = (model(images).argmax(1) == labels) & (model(adversarial).argmax(1) != labels)
        found = fooling_directions(model, source, images, labels, epsilon=0.5).other
        assert torch.equal(found, expected)
        assert not found[:5].any()
        total += int(found.sum())
    assert total > 10
