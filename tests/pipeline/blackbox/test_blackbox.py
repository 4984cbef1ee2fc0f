import numpy as np
import pytest
import torch

from gradshard.pipeline import models
from gradshard.pipeline.attacks.fgsm import fgsm, rand_fgsm
from gradshard.pipeline.blackbox.finite_differences import (
    confidence_margin,
    estimate_signs,
    estimated_rand_fgsm,
    pixel_groups,
)
from gradshard.pipeline.blackbox.oracle import Oracle
from gradshard.pipeline.blackbox.random_forest import Forest, transfer_counts
from gradshard.pipeline.blackbox.substitute import SubstituteConfig, jacobian_augmentation, substitutes
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import perturb, random_signs
from gradshard.pipeline.gradients.signs import to_unit_range


@pytest.fixture
def images():
    return torch.rand(30, 1, 3, 4, generator=torch.Generator().manual_seed(3))


def test_every_image_that_is_asked_for_is_counted(linear_model, images):
    oracle = Oracle(linear_model())
    oracle.labels(images)
    oracle.confidences(images[:7])
    assert oracle.queries == 37


def test_the_margin_of_confidences_is_that_of_logits(linear_model, images):
    model, labels = linear_model(classes=5, scale=2.0), torch.arange(30) % 5
    logits = model(images).detach().double()
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    expected = others - logits.gather(1, labels[:, None])[:, 0]
    found = confidence_margin(Oracle(model).confidences(images), labels)
    assert torch.allclose(found, expected, atol=1e-4)


def test_confidences_of_one_and_zero_give_a_finite_margin():
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    margins = confidence_margin(certain, torch.tensor([0, 0]))
    assert torch.isfinite(margins).all()
    assert margins[0] < -80 < 80 < margins[1]


@pytest.mark.parametrize("seed", range(4))
def test_single_pixels_give_the_sign_of_the_gradient_for_two_queries_each(linear_model, images, seed):
    model, labels = linear_model(classes=4, seed=seed), torch.arange(30) % 4
    oracle = Oracle(model)
    groups = pixel_groups(12, 12, generator=torch.Generator().manual_seed(seed))
    found = estimate_signs(oracle, images, labels, groups, delta=0.001)
    grad, _ = input_gradient(model, images, labels)
    clear = grad.abs() > 0.01
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], grad.sign()[clear])
    assert oracle.queries == 30 * 2 * 12


def test_a_group_takes_the_sign_of_its_mean_derivative(linear_model, images):
    model, labels = linear_model(), torch.zeros(30, dtype=torch.int64)
    groups = pixel_groups(12, 5, generator=torch.Generator().manual_seed(1))
    assert sorted(torch.bincount(groups).tolist()) == [2, 2, 2, 3, 3]
    found = estimate_signs(Oracle(model), images, labels, groups, delta=0.001)
    grad = (model.linear.weight[1] - model.linear.weight[0]).detach()
    for group in range(5):
        members = groups == group
        assert (found.flatten(1)[:, members] == grad[members].sum().sign()).all()


def test_with_all_queries_the_attack_is_rand_fgsm(linear_model, images):
    model, labels = linear_model(seed=2), torch.arange(30) % 2
    noise = random_signs(images.shape, generator=torch.Generator().manual_seed(0))
    groups = pixel_groups(12, 12, generator=torch.Generator())
    budget = {"epsilon": 0.3, "alpha": 0.05, "noise": noise}
    found = estimated_rand_fgsm(Oracle(model), images, labels, groups, delta=0.001, **budget)
    assert torch.allclose(found, rand_fgsm(model, images, labels, **budget))


def test_augmentation_climbs_the_labels_logit_within_the_range_of_pixels(linear_model, images):
    model, labels = linear_model(classes=3), torch.arange(30) % 3
    moved = jacobian_augmentation(model, images, labels, step=0.1)
    expected = (images + 0.1 * model.linear.weight[labels].sign().view(-1, 1, 3, 4)).clamp(0, 1)
    assert torch.allclose(moved, expected)


def test_the_set_doubles_until_its_limit_and_queries_are_its_size(linear_model, images):
    oracle = Oracle(linear_model())
    growth = SubstituteConfig(rounds=4, epochs=1, step=0.1, limit=100, seed=0)
    found = list(substitutes(oracle, lambda: linear_model(seed=9), images, growth))
    assert [queries for _, queries in found] == [30, 60, 100, 100]
    again = list(substitutes(Oracle(linear_model()), lambda: linear_model(seed=9), images, growth))
    assert torch.equal(found[-1][0].linear.weight, again[-1][0].linear.weight)


def test_a_substitute_with_batch_normalisation_is_trained_on_one_image_more_than_whole_batches(linear_model):
    def fresh():
        torch.manual_seed(0)
        flat = torch.nn.Flatten()
        return torch.nn.Sequential(flat, torch.nn.Linear(12, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))

    growth = SubstituteConfig(rounds=1, epochs=2, step=0.1, limit=65, seed=0)
    images = torch.rand(65, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    ((model, queries),) = substitutes(Oracle(linear_model()), fresh, images, growth)
    assert (queries, bool(model(images).isfinite().all())) == (65, True)


@pytest.mark.slow
def test_a_substitute_grown_from_labels_fools_its_target_more_than_noise_does(digits):
    (x, y), (x_test, y_test) = digits["train"], digits["test"]
    target = models.create_model("D", (1, 28, 28), 10, seed=0)
    optimizer = torch.optim.Adam(target.parameters())
    pixels, labels = to_unit_range(torch.from_numpy(x[:2000])), torch.from_numpy(y[:2000]).long()
    torch.manual_seed(0)
    for _ in range(6):
        for rows in torch.randperm(2000).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(target(pixels[rows]), labels[rows]).backward()
            optimizer.step()
    target.eval()
    own, attacked = to_unit_range(torch.from_numpy(x_test[:100])), to_unit_range(torch.from_numpy(x_test[100:500]))
    truth = torch.from_numpy(y_test[100:500]).long()
    growth = SubstituteConfig(rounds=4, epochs=10, step=0.1, limit=800, seed=0)
    fresh = lambda: models.create_model("D", (1, 28, 28), 10, seed=5)  # noqa: E731
    *_, (substitute, queries) = substitutes(Oracle(target), fresh, own, growth)
    noise = random_signs(attacked.shape, generator=torch.Generator().manual_seed(0))
    errors = [
        (target(examples).argmax(1) != truth).float().mean()
        for examples in (attacked, perturb(attacked, noise, 0.2), fgsm(substitute, attacked, truth, epsilon=0.2))
    ]
    assert queries == 800
    assert errors[2] > errors[1] + 0.2


def test_a_forest_is_the_same_for_the_same_seed_and_learns(digits):
    (x, y), (x_test, y_test) = digits["train"], digits["test"]
    forests = [Forest(20, seed=1), Forest(20, seed=1), Forest(20, seed=2)]
    for forest in forests:
        forest.fit(x[:1500], y[:1500])
    pixels = to_unit_range(torch.from_numpy(x_test[:400])).numpy()
    errors = [int(forest.wrong(pixels, y_test[:400]).sum()) for forest in forests]
    assert errors[0] == errors[1] < 80
    assert np.array_equal(
        forests[0]._forest.predict(x[:50].reshape(50, -1)), forests[1]._forest.predict(x[:50].reshape(50, -1))
    )


def test_errors_of_a_forest_are_told_of_all_images_of_its_right_ones_and_of_those_that_fool_the_source(linear_model):
    images = torch.rand(200, 1, 3, 4, generator=torch.Generator().manual_seed(3))
    source = linear_model(classes=3, scale=2.0)
    labels = torch.arange(200) % 3
    forest = Forest(5, seed=0)
    forest.fit((images * 255).numpy().astype(np.uint8), labels.numpy())
    small, large = transfer_counts(forest, source, images, labels, epsilons=[0.1, 0.4])
    clean = forest.wrong(images.numpy(), labels.numpy())
    for counts, epsilon in ((small, 0.1), (large, 0.4)):
        adversarial = fgsm(source, images, labels, epsilon=epsilon)
        wrong = forest.wrong(adversarial.numpy(), labels.numpy())
        fooling = (source(adversarial).argmax(1) != labels).numpy()
        assert (counts.epsilon, counts.errors, counts.n) == (epsilon, wrong.sum(), 200)
        assert (counts.errors_of_right, counts.right) == ((wrong & ~clean).sum(), 200 - clean.sum())
        assert (counts.errors_of_fooling, counts.fooling) == ((wrong & fooling).sum(), fooling.sum())
    assert small.fooling < large.fooling
    assert 0 < small.right < 200
