"""Attacks from elsewhere: those of three libraries beside ours, and what no attack may do."""

import random
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gradshard.pipeline.attacks import custom
from gradshard.pipeline.attacks.crafting import check_attacks, sample_noise
from gradshard.pipeline.attacks.registry import ATTACKS, AttackConfig, custom_attack
from gradshard.pipeline.evaluation.error_matrix import evaluate_block, plan_cases, plan_craftings
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import leaves_ball
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.gradients.watching import Watched
from gradshard.storage.errors import GradshardError
from tests.helpers.linear_model import LinearModel

EPSILON = 0.1
STRENGTH = AttackConfig(EPSILON, 0.02, 3)


@pytest.fixture(scope="module")
def classifier(digits):
    """A linear classifier of digits that is right about nine in ten, by least squares."""
    images, labels = digits["train"]
    pixels = to_unit_range(torch.from_numpy(images)).flatten(1)
    wanted = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 10).float()
    ridge = pixels.T @ pixels + 10 * torch.eye(784)
    return LinearModel(5 * torch.linalg.solve(ridge, pixels.T @ wanted).T).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch(digits):
    images, labels = digits["test"]
    return to_unit_range(torch.from_numpy(images[:200])), torch.from_numpy(labels[:200]).long()


@pytest.fixture
def images():
    return torch.rand(4, 1, 3, 4, generator=torch.Generator().manual_seed(1))


def crafted(model, images, labels, call, *, seed=0, **arguments):
    return custom.craft(
        model, images, labels, epsilon=EPSILON, seed=seed, name="attack.custom.theirs", call=call, arguments=arguments
    )


SAME = ["torchattacks:FGSM", "foolbox:LinfFastGradientAttack", "art:FastGradientMethod"]


def test_fgsm_of_each_library_gives_the_rates_of_ours_in_one_matrix(classifier, batch):
    images, labels = batch
    theirs = {call.partition(":")[0]: custom_attack(call, call, {}) for call in SAME}
    attacks = {**ATTACKS, **theirs}
    craftings = plan_craftings(
        {name: ["A"] for name in ("fgsm", *theirs)}, ["cross_entropy"], STRENGTH, attacks=attacks
    )
    draws = sample_noise(images.shape, 1, generator=torch.Generator().manual_seed(0))
    planned = plan_cases(craftings, ["A"])
    ranks = evaluate_block({"A": classifier}, planned, images, labels, draws=draws, attacks=attacks)
    wrong = (ranks > 0).sum(1).tolist()
    assert wrong[0] < 40 < 100 < wrong[1]
    assert wrong[1:] == [wrong[1]] * 4


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("torchattacks:DIFGSM", {"alpha": 0.05, "steps": 4, "random_start": True}),
        ("torchattacks:PGD", {"alpha": 0.05, "steps": 4}),
        ("foolbox:LinfPGD", {"rel_stepsize": 0.5, "steps": 4}),
        ("art:ProjectedGradientDescent", {"eps_step": 0.05, "max_iter": 4, "num_random_init": 1}),
    ],
)
def test_a_librarys_attack_follows_the_seed_alone_and_stays_in_the_ball(classifier, batch, call, arguments):
    images, labels = batch[0][:50], batch[1][:50]
    one = crafted(classifier, images, labels, call, seed=1, **arguments)
    torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
    same, other = (crafted(classifier, images, labels, call, seed=seed, **arguments) for seed in (1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not leaves_ball(one, images, EPSILON).any()
    fooled = [(classifier(examples).argmax(1) != labels).sum() for examples in (images, one)]
    assert fooled[1] > fooled[0] + 10


def test_threads_that_attack_at_once_do_not_share_their_draws(classifier, batch):
    images, labels = batch[0][:20], batch[1][:20]

    def attacked(seed):
        return crafted(classifier, images, labels, "torchattacks:PGD", seed=seed, alpha=0.05, steps=4)

    alone = [attacked(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(attacked, range(8)))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_an_attack_leaves_the_model_the_images_and_all_random_generators_as_they_were(linear_model, images):
    model, before = linear_model().eval(), images.clone()
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    crafted(model, images, torch.zeros(4).long(), f"{__name__}:careless")
    assert torch.equal(images, before)
    assert not model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def careless(model, images, labels, *, epsilon):
    model.train().requires_grad_(False)
    torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
    return images.add_(epsilon)


def test_the_gradients_that_it_takes_are_counted_where_the_model_is_watched(linear_model, images):
    watched = Watched(linear_model())
    crafted(watched, images, torch.zeros(4).long(), f"{__name__}:one_step")
    assert watched.rows == 4


def one_step(model, images, labels, *, epsilon):
    return images + epsilon * input_gradient(model, images, labels)[0].sign()


def test_what_leaves_the_range_is_clipped(linear_model, images):
    found = crafted(linear_model(), images, torch.zeros(4).long(), f"{__name__}:bright")
    assert torch.equal(found, (images + EPSILON).clamp(0, 1))


def bright(model, images, labels, *, epsilon):
    return images + epsilon


def far(model, images, labels, *, epsilon):
    return images + torch.tensor([1.0, 0, 2, 0]).view(4, 1, 1, 1) * (epsilon + 1e-3) * (0.5 - images).sign()


def undefined(model, images, labels, *, epsilon):
    return images / 0


def other_shape(model, images, labels, *, epsilon):
    return images.flatten(1)


def other_dtype(model, images, labels, *, epsilon):
    return images.double()


def array(model, images, labels, *, epsilon):
    return images.numpy()


def leaving(model, images, labels, *, epsilon):
    raise SystemExit(3)


def failing(model, images, labels, *, epsilon):
    return {}["examples"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("far", r"moved 2 of 4 images by more than eps, which is 0.1 for every pixel \(the furthest by 0.202\)"),
        ("undefined", "returned pixels that are no finite numbers"),
        ("other_shape", r"returned float32 of shape \(4, 12\) for images that are float32 of shape \(4, 1, 3, 4\)"),
        ("other_dtype", "returned float64 of shape .*: it must keep shape and dtype"),
        ("array", "returned a ndarray and not a tensor"),
        ("leaving", r"failed \(SystemExit: 3, "),
        ("failing", r"failed \(KeyError: 'examples', .*test_custom.py:\d+\)"),
    ],
)
def test_what_is_no_attack_within_the_budget_is_refused_by_name(linear_model, images, call, sentence):
    with pytest.raises(GradshardError, match=rf"^attack.custom.theirs \({__name__}:{call}\) {sentence}"):
        crafted(linear_model(), images, torch.zeros(4).long(), f"{__name__}:{call}")


@pytest.mark.parametrize(
    ("call", "arguments", "sentence"),
    [
        ("nowhere:attack", {}, "there is no module nowhere"),
        ("torchattacks:Absent", {}, "the module torchattacks has no Absent"),
        ("torchattacks:DIFGSM", {"stepz": 1}, "got an unexpected keyword argument 'stepz': it takes model, eps, alpha"),
        ("torchattacks:CW", {}, "it takes no eps, but stores and errors are of moves within"),
        ("foolbox:LinfPGD", {"eps_step": 1}, "got an unexpected keyword argument 'eps_step'"),
        ("art:DeepFool", {}, "it takes no eps, but stores and errors are of moves within"),
        (f"{__name__}:EPSILON", {}, "EPSILON is no function"),
        (f"{__name__}:bright", {"steps": 3}, "got an unexpected keyword argument 'steps': it takes model, images"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_is_attacked(call, arguments, sentence):
    attacks = {"theirs": custom_attack("theirs", call, arguments)}
    with pytest.raises(GradshardError, match=re.escape(f"attack.custom.theirs ({call}): {sentence}")):
        check_attacks(["theirs"], classes=10, attacks=attacks)


def test_the_origin_of_an_attack_is_its_librarys_version_or_the_digest_of_its_file():
    assert custom.provenance(name="x", call="art:FastGradientMethod").startswith("adversarial-robustness-toolbox 1.")
    assert re.fullmatch("[0-9a-f]{64}", custom.provenance(name="x", call=f"{__name__}:bright"))
