"""The attacks against models whose gradients have a closed form, and what holds for every attack and model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from gradshard.pipeline.attacks.crafting import craft_by_name, sample_noise
from gradshard.pipeline.attacks.fgsm import fgsm, iterative_fgsm, rand_fgsm
from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.loss import attack_labels, attack_loss, logit_margin, step_sign
from gradshard.pipeline.gradients.perturb import leaves_ball, perturb, random_signs
from gradshard.storage.errors import GradshardError

ATTACKS = ["fgsm", "ifgsm", "rand_fgsm"]


@pytest.fixture
def images():
    return torch.rand(9, 1, 3, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels():
    return torch.randint(0, 2, (9,), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def noise(images):
    return random_signs(images.shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def draws(images):
    return sample_noise(images.shape, 2, generator=torch.Generator().manual_seed(3))


def two_class_sign(model, labels):
    """With two classes u = z_other - z_t, so its gradient is w_other - w_t whatever the image."""
    weight = model.linear.weight
    return (weight[1 - labels] - weight[labels]).sign().view(-1, 1, 3, 4)


@given(st.integers(2, 8), st.integers(0, 1000))
def test_the_margin_is_the_log_odds_against_the_label(classes, seed):
    logits = torch.randn(5, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    labels = torch.randint(0, classes, (5,), generator=torch.Generator().manual_seed(seed))
    u = logit_margin(logits, labels)
    assert torch.allclose(functional.cross_entropy(logits, labels, reduction="none"), torch.log1p(u.exp()))


def test_exact_gradients_do_not_vanish_where_cross_entropy_does(linear_model, images, labels):
    model = linear_model(scale=400.0)
    predicted = model(images).argmax(1)
    exact, _ = input_gradient(model, images, predicted)
    rounded, _ = input_gradient(model, images, predicted, gradient="cross_entropy")
    assert torch.equal(exact.sign(), two_class_sign(model, predicted))
    assert (rounded == 0).any(dim=(1, 2, 3)).sum() >= 5


@pytest.mark.parametrize("gradient", ["exact", "cross_entropy"])
def test_both_gradients_have_one_sign_where_nothing_is_rounded(linear_model, images, gradient):
    model = linear_model(classes=5).double()
    labels = torch.arange(9) % 5
    grad, used = input_gradient(model, images.double(), labels, gradient=gradient)
    reference = images.double().requires_grad_()
    functional.cross_entropy(model(reference), labels, reduction="sum").backward()
    assert torch.equal(grad.sign(), reference.grad.sign())
    assert torch.equal(used, labels)


def test_each_example_has_its_own_gradient(linear_model, images, labels):
    model = linear_model(classes=3)
    whole, _ = input_gradient(model, images, labels)
    alone = torch.cat([input_gradient(model, images[i : i + 1], labels[i : i + 1])[0] for i in range(9)])
    assert torch.allclose(whole, alone)


def test_crafting_leaves_model_and_images_as_they_were(linear_model, images, labels, draws):
    model = linear_model().train()
    before = images.clone()
    for attack in ATTACKS:
        craft_by_name(attack, model, images, labels, strength=AttackConfig(0.3, 0.1, 3), draws=draws)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert torch.equal(images, before)
    assert not images.requires_grad


def test_fgsm_takes_one_step_along_the_closed_form_sign(linear_model, images, labels):
    model = linear_model()
    expected = (images + 0.3 * two_class_sign(model, labels)).clamp(0, 1)
    assert torch.equal(fgsm(model, images, labels, epsilon=0.3), expected)


def test_towards_a_label_steps_the_other_way(linear_model, images, labels):
    model = linear_model()
    expected = (images - 0.3 * two_class_sign(model, labels)).clamp(0, 1)
    assert torch.equal(fgsm(model, images, labels, epsilon=0.3, targeted=True), expected)


def test_rand_fgsm_steps_alpha_at_random_then_the_rest_along_the_gradient(linear_model, images, labels, noise):
    model = linear_model()
    moved = (images + 0.1 * noise).clamp(0, 1)
    expected = (moved + 0.2 * two_class_sign(model, labels)).clamp(0, 1)
    crafted = rand_fgsm(model, images, labels, epsilon=0.3, alpha=0.1, noise=noise)
    assert torch.allclose(crafted, expected)


def test_rand_fgsm_takes_its_gradient_at_the_moved_image(images, noise):
    class Quadratic(torch.nn.Module):
        """u = sum (x - 1/2)^2: its sign at a pixel is the side of 1/2 that the pixel is on."""

        def forward(self, x):
            u = (x - 0.5).square().flatten(1).sum(1)
            return torch.stack([torch.zeros_like(u), u], dim=1)

    labels = torch.zeros(9, dtype=torch.int64)
    moved = perturb(images, noise, 0.2)
    expected = perturb(moved, (moved - 0.5).sign(), 0.1)
    assert torch.equal(rand_fgsm(Quadratic(), images, labels, epsilon=0.3, alpha=0.2, noise=noise), expected)


def test_one_step_of_ifgsm_is_fgsm(linear_model, images, labels):
    model = linear_model(classes=4)
    once = iterative_fgsm(model, images, labels, epsilon=0.3, steps=1)
    assert torch.equal(once, fgsm(model, images, labels, epsilon=0.3))


@pytest.mark.parametrize(("epsilon", "steps"), [(2 / 255, 365), (8 / 255, 526), (16 / 255, 379), (0.3, 351)])
def test_rounding_of_many_steps_does_not_add_up(linear_model, images, labels, epsilon, steps):
    found = iterative_fgsm(linear_model(), images, labels, epsilon=epsilon, steps=steps)
    assert not leaves_ball(found, images, epsilon).any()


def test_ifgsm_clips_after_every_step(linear_model, labels):
    model = linear_model()
    images = torch.full((9, 1, 3, 4), 0.05)
    crafted = iterative_fgsm(model, images, labels, epsilon=0.3, steps=3)
    up = two_class_sign(model, labels) > 0
    assert torch.allclose(crafted, torch.where(up, 0.35, 0.0))


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_strength_is_no_perturbation(linear_model, images, labels, draws, attack):
    crafted = craft_by_name(attack, linear_model(), images, labels, strength=AttackConfig(0.0, 0.0, 5), draws=draws)
    assert torch.equal(crafted, images)


@pytest.mark.parametrize("attack", ATTACKS)
@given(epsilon=st.floats(0.001, 1), share=st.floats(0, 0.99), steps=st.integers(1, 7))
def test_every_attack_stays_within_epsilon_and_the_pixel_range(attack, epsilon, share, steps):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 1, 3, 4, generator=generator)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    crafted = craft_by_name(
        attack,
        model,
        images,
        torch.tensor([0, 1, 2, 0]),
        strength=AttackConfig(epsilon, share * epsilon, steps),
        draws=sample_noise(images.shape, 2, generator=generator),
    )
    assert (crafted - images).abs().max() <= epsilon + 1e-6
    assert crafted.min() >= 0
    assert crafted.max() <= 1


def test_epsilon_may_differ_between_examples(images):
    epsilon = torch.linspace(0, 0.5, 9).view(-1, 1, 1, 1)
    crafted = perturb(images, torch.ones_like(images), epsilon)
    assert torch.equal(crafted, (images + epsilon).clamp(0, 1))


def test_epsilons_that_would_scale_columns_in_place_of_images_are_refused():
    images = torch.rand(5, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    for shape in ((5,), (5, 1), (5, 1, 1, 5)):
        with pytest.raises(GradshardError, match=r"epsilon of shape .* give a number, or one for each image"):
            perturb(images, torch.ones_like(images), torch.full(shape, 0.1))
    assert torch.equal(perturb(images, torch.ones_like(images), torch.tensor(0.1)), (images + 0.1).clamp(0, 1))


@pytest.mark.parametrize("epsilon", [8, -0.1])
def test_an_epsilon_that_is_no_distance_of_pixels_is_refused(images, epsilon):
    with pytest.raises(GradshardError, match=f"epsilon is {epsilon}, no distance of pixels"):
        perturb(images, torch.ones_like(images), epsilon)


def test_signs_that_are_not_those_of_the_images_are_refused(images):
    with pytest.raises(GradshardError, match=r"signs of shape \(9, 12\) are none of images of shape"):
        perturb(images, torch.ones(9, 12), 0.1)


def test_an_epsilon_in_double_precision_leaves_the_images_in_single(images):
    assert perturb(images, torch.ones_like(images), torch.full((9, 1, 1, 1), 0.1).double()).dtype == torch.float32


def test_what_leaves_the_ball_or_the_range_is_told():
    images = torch.full((4, 1, 2, 2), 0.5)
    examples = images.clone()
    examples[0] += 0.1
    examples[1, 0, 0, 0] += 0.11
    examples[2, 0, 1, 1] = 1.2
    assert leaves_ball(examples, images, 0.1).tolist() == [False, True, True, False]


def test_labels_follow_the_policy():
    logits = torch.tensor([[0.1, 0.9, -3.0, 0.0], [2.0, 2.5, 1.0, -1.0]])
    true = torch.tensor([3, 0])
    assert attack_labels(logits, true, "predicted").tolist() == [1, 1]
    assert attack_labels(logits, true, "least_likely").tolist() == [2, 3]
    assert attack_labels(logits, true, "true").tolist() == [3, 0]
    with pytest.raises(GradshardError, match="there are no labels, which the policy true needs"):
        attack_labels(logits, None, "true")


def test_the_least_likely_class_may_be_the_true_one():
    assert attack_labels(torch.tensor([[3.0, -1.0]]), torch.tensor([1]), "least_likely").tolist() == [1]


def test_the_label_policy_changes_the_sign_only_where_prediction_and_truth_differ(linear_model, images, labels):
    model = linear_model()
    leaked, _ = input_gradient(model, images, labels, policy="true")
    predicted, used = input_gradient(model, images, labels, policy="predicted")
    differ = (leaked.sign() != predicted.sign()).any(dim=(1, 2, 3))
    assert torch.equal(differ, used != labels)
    assert 0 < differ.sum() < 9


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_least_likely_class_is_approached(linear_model, images, labels, draws, attack):
    model = linear_model(classes=5)
    target = model(images).argmin(1)
    crafted = craft_by_name(
        attack, model, images, labels, strength=AttackConfig(0.3, 0.05, 4), draws=draws, policy="least_likely"
    )
    log_p = functional.log_softmax(model(images), 1).gather(1, target[:, None])
    log_p_crafted = functional.log_softmax(model(crafted), 1).gather(1, target[:, None])
    assert (log_p_crafted > log_p).all()
    assert step_sign("least_likely") == -1
    assert step_sign("predicted") == step_sign("true") == 1


def test_a_saturated_half_precision_loss_is_summed_in_single(images):
    logits = torch.tensor([[30.0, -30.0]], dtype=torch.bfloat16)
    assert attack_loss(logits, torch.tensor([0]), "exact").dtype == torch.float32
    assert attack_loss(logits, torch.tensor([0]), "exact").item() == -60.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda images: {"images": (images * 255).byte()}, r"images are torch\.uint8, at which no gradient"),
        (lambda images: {"model": lambda x: {"logits": x.flatten(1)}}, "gives a dict and not logits"),
    ],
    ids=["bytes", "mapping"],
)
def test_what_has_no_input_gradient_is_told(linear_model, images, labels, change, told):
    given = {"model": linear_model(), "images": images} | change(images)
    with pytest.raises(GradshardError, match=told):
        input_gradient(given["model"], given["images"], labels)


def test_a_label_that_torch_would_pass_over_is_no_gradient_of_0(linear_model, images):
    with pytest.raises(IndexError, match="-100 is out of bounds"):
        input_gradient(linear_model(), images, torch.full((9,), -100), gradient="cross_entropy")


def test_random_signs_are_fair_and_follow_the_generator():
    one, same = (random_signs(torch.Size((100, 1, 28, 28)), generator=torch.Generator().manual_seed(7)) for _ in "ab")
    assert torch.equal(one, same)
    assert set(one.unique().tolist()) == {-1.0, 1.0}
    assert abs(one.mean().item()) < 4 / math.sqrt(one.numel())


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"policy": "random"}, "policy is random: choose predicted or true or least_likely"),
        ({"gradient": "exakt"}, "gradient is exakt: choose exact or cross_entropy"),
        ({"labels": None}, "there are no labels, which the policy true needs"),
    ],
    ids=str,
)
def test_a_gradient_or_label_that_there_is_not_is_refused_and_not_taken_for_another(
    linear_model, images, asked, sentence
):
    with pytest.raises(GradshardError, match=sentence):
        input_gradient(linear_model(), images, **{"labels": torch.zeros(len(images), dtype=torch.int64), **asked})
