"""Probes of a linear model, whose errors under every attack are known, and of models that mask their gradient."""

import json

import pytest
import torch

from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.probing import probe
from gradshard.pipeline.gradients.perturb import random_signs
from tests.helpers.linear_model import LinearModel

STRENGTH = AttackConfig(epsilon=0.1, alpha=0.02, steps=5)
EPSILONS = (0.0, 0.05, 0.1, 1.0)


@pytest.fixture
def measured(linear_model):
    generator = torch.Generator().manual_seed(0)
    model = linear_model(seed=0)
    images = 0.2 + 0.6 * torch.rand(200, 1, 3, 4, generator=generator)
    labels = model(images).argmax(1)
    labels[:20] = 1 - labels[:20]
    noise = random_signs(images.shape, generator=generator)
    return (
        model,
        images,
        labels,
        probe(
            model,
            linear_model(seed=1),
            images,
            labels,
            strength=STRENGTH,
            epsilons=EPSILONS,
            noise=noise,
            gradient="exact",
        ),
    )


def test_errors_of_a_linear_model_are_those_of_the_closed_form(measured):
    model, images, labels, found = measured
    with torch.no_grad():
        logits = model(images)
        margin = logits.gather(1, (1 - labels).unsqueeze(1)) - logits.gather(1, labels.unsqueeze(1))
        grad = (model.linear.weight[1 - labels] - model.linear.weight[labels]).abs().sum(1)
    for epsilon in (0.0, 0.05, 0.1):
        expected = int((margin.squeeze(1) + epsilon * grad > 0).sum())
        assert abs(found.curve[epsilon] - expected) <= 1
    assert found.curve[0.0] == 20
    assert found.errors["fgsm"] == found.curve[0.1] == found.errors["ifgsm"]
    assert found.errors["noise"] < found.errors["fgsm"]
    assert (found.zero_gradients, found.violations, found.n, found.classes) == (0, 0, 200, 2)


def test_transferred_examples_go_by_the_gradient_of_the_holdout_model(measured, linear_model):
    model, images, labels, found = measured
    examples = {epsilon: fgsm(linear_model(seed=1), images, labels, epsilon=epsilon) for epsilon in EPSILONS}
    with torch.no_grad():
        errors = {epsilon: int((model(x).argmax(1) != labels).sum()) for epsilon, x in examples.items()}
    assert found.transferred == errors
    assert found.transferred[0.1] < found.curve[0.1]


def test_fgsm_of_epsilon_less_alpha_is_the_weaker_one(measured):
    model, images, labels, found = measured
    examples = fgsm(model, images, labels, epsilon=0.08)
    with torch.no_grad():
        assert found.errors["fgsm_less_alpha"] == int((model(examples).argmax(1) != labels).sum())
    assert found.rate("fgsm_less_alpha").rate < found.rate("fgsm").rate


def test_a_probe_may_step_towards_the_least_likely_class(measured, linear_model):
    model, images, labels, found = measured
    options = {"strength": STRENGTH, "epsilons": (0.0, 0.1), "noise": torch.ones_like(images)}
    probed = probe(model, linear_model(seed=1), images, labels, **options, policy="least_likely")
    with torch.no_grad():
        least, foreign = model(images).argmin(1), linear_model(seed=1)(images).argmin(1)
        examples = fgsm(model, images, least, epsilon=0.1, targeted=True)
        errors = int((model(examples).argmax(1) != labels).sum())
        transferred = fgsm(linear_model(seed=1), images, foreign, epsilon=0.1, targeted=True)
        assert probed.transferred[0.1] == int((model(transferred).argmax(1) != labels).sum())
    assert probed.curve[0.1] == probed.errors["fgsm"] == errors
    # Wrong images: the least likely class of two is the right one.
    assert errors < found.curve[0.1]


def test_a_probe_comes_back_from_json(measured):
    _, _, _, found = measured
    record = json.loads(json.dumps(found.record()))
    assert GradientProbe.restore(record | {"flags": []}) == found


def test_a_constant_model_has_no_gradient_at_all(measured, linear_model):
    _, images, labels, _ = measured
    model = linear_model(seed=0, scale=0.0)
    noise = torch.ones_like(images)
    found = probe(model, model, images, labels, strength=STRENGTH, epsilons=(0.0,), noise=noise)
    assert found.zero_gradients == 200


def test_a_tie_of_logits_counts_as_an_error_as_in_the_error_matrix(measured):
    _, images, labels, _ = measured
    model = LinearModel(torch.zeros(2, 12))
    noise = torch.ones_like(images)
    found = probe(model, model, images, labels, strength=STRENGTH, epsilons=(0.0,), noise=noise)
    assert set(found.errors.values()) == {found.curve[0.0]} == {200}


def test_probes_of_parts_add_up_to_that_of_the_whole(measured):
    _, _, _, found = measured
    assert found + found == type(found)(
        n=400,
        classes=2,
        errors={name: 2 * count for name, count in found.errors.items()},
        curve={epsilon: 2 * count for epsilon, count in found.curve.items()},
        transferred={epsilon: 2 * count for epsilon, count in found.transferred.items()},
        zero_gradients=0,
        violations=0,
    )
