"""Our attacks against independent implementations, and against themselves in float64.

Two runs of an iterative attack part for good after one sign that rounding decided. So they are compared after every
step, on the examples that were equal before it, in every pixel whose sign is certain there (see ``rounding``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from gradshard.pipeline.attacks.crafting import AttackNoise, craft_by_name
from gradshard.pipeline.attacks.fgsm import fgsm, iterative_fgsm, rand_fgsm
from gradshard.pipeline.attacks.pgd import mi_fgsm, pgd
from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.signs import to_unit_range
from tests.helpers import peers
from tests.helpers.peers import Climb
from tests.helpers.rounding import Reference
from tests.helpers.trained import train_on

EPSILON, STEPS = 0.1, 10
EQUAL = 1e-6
# No power of two, so that a mean over the batch is rounded otherwise than our sum.
N = 100
SEEDS = (0, 1, 2)
# Of all pixels in all steps, that must have been certain and compared.
SHARE = 0.95
# Of size epsilon / 2: where RAND+FGSM starts if alpha is that.
ALPHA = EPSILON / 2


@pytest.fixture(scope="module")
def trained(digits):
    """Models D, and the test digits."""
    images, labels = (torch.from_numpy(part[:N]) for part in digits["test"])
    return {seed: train_on(digits, "D", seed=seed) for seed in SEEDS}, to_unit_range(images), labels.long()


OURS: dict[str, Callable[[Climb, str], Tensor]] = {
    "fgsm": lambda c, loss: fgsm(c.model, c.images, c.labels, epsilon=c.epsilon, gradient=loss, targeted=c.targeted),
    "rand_fgsm": lambda c, loss: rand_fgsm(
        c.model, c.images, c.labels, epsilon=c.epsilon, alpha=ALPHA, noise=c.noise, gradient=loss
    ),
    "ifgsm": lambda c, loss: iterative_fgsm(
        c.model, c.images, c.labels, epsilon=c.steps * c.step, steps=c.steps, gradient=loss, targeted=c.targeted
    ),
    "mifgsm": lambda c, loss: mi_fgsm(
        c.model, c.images, c.labels, epsilon=c.steps * c.step, steps=c.steps, loss=loss, targeted=c.targeted
    ),
    "pgd": lambda c, loss: pgd(
        c.model,
        c.images,
        c.labels,
        epsilon=c.epsilon,
        step=c.step,
        steps=c.steps,
        noise=c.noise[None],
        loss=loss,
        targeted=c.targeted,
    ),
}
OURS["cw"] = OURS["pgd"]
STEP = {"fgsm": EPSILON, "rand_fgsm": ALPHA, "pgd": 2.5 * EPSILON / STEPS, "cw": 2.5 * EPSILON / STEPS}


def planned(attack, trained, seed, *, targeted=False):
    """The whole attack: from where, by which steps."""
    models, images, labels = trained
    model = models[seed]
    torch.manual_seed(seed)
    if attack in ("pgd", "cw"):
        noise = torch.empty_like(images).uniform_(-EPSILON, EPSILON) / EPSILON
        start = (images + EPSILON * noise).clamp(0, 1)
    else:
        noise = torch.randn_like(images).sign()
        start = perturb(images, noise, ALPHA) if attack == "rand_fgsm" else images
    steps = 1 if attack in ("fgsm", "rand_fgsm") else STEPS
    step = STEP.get(attack, EPSILON / STEPS)
    if targeted:
        labels = model(images).argmin(1)
    return Climb(model, images, labels, EPSILON, step, steps, start, noise, seed, targeted)


def prefixes(climb, attack):
    """The images after one step, two steps, and so on, of an attack."""
    return [attack(replace(climb, steps=steps)) for steps in range(1, climb.steps + 1)]


@dataclass
class Agreement:
    """How many pixels were compared, of how many in all steps."""

    compared: int
    possible: int


def compare(ours, theirs, climb, reference, *, momentum=False):
    """Hold two runs against each other, step by step; every certain pixel must be equal."""
    found, same = Agreement(0, climb.steps * climb.images.numel()), torch.ones(N, dtype=torch.bool)
    before = [climb.start, *ours[:-1]]
    for one, other, certain in zip(ours, theirs, reference.along(before, momentum=momentum), strict=True):
        # NaN is not equal.
        equal = (one.double() - other.double()).abs() <= EQUAL
        sure = certain.sure & same.view(-1, 1, 1, 1)
        assert equal[sure].all()
        found.compared += int(sure.sum())
        same &= equal.flatten(1).all(1)
    return found


CASES = [
    ("fgsm", peers.foolbox_fgsm),
    ("fgsm", peers.torchattacks_fgsm),
    ("fgsm", peers.art_fgsm),
    ("rand_fgsm", peers.foolbox_fgsm_after_the_random_step),
    ("rand_fgsm", peers.torchattacks_rfgsm),
    ("ifgsm", peers.foolbox_bim),
    ("ifgsm", peers.torchattacks_bim),
    ("ifgsm", peers.art_bim),
    ("mifgsm", peers.torchattacks_mifgsm),
    ("mifgsm", peers.art_mim),
    ("pgd", peers.foolbox_pgd),
    ("pgd", peers.torchattacks_pgd),
    ("cw", peers.foolbox_hinge),
]


@pytest.mark.parametrize(("attack", "peer"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_with_cross_entropy_an_attack_gives_the_images_of_a_peer(trained, attack, peer):
    loss = "hinge" if attack == "cw" else "cross_entropy"
    for seed in SEEDS:
        climb = planned(attack, trained, seed)
        ours = prefixes(climb, lambda c: OURS[attack](c, loss))
        found = compare(
            ours, prefixes(climb, peer), climb, Reference(climb.model, climb.labels, loss), momentum=attack == "mifgsm"
        )
        assert found.compared >= SHARE * found.possible
        assert ((ours[-1] - climb.images).abs() > 0.6 * EPSILON).double().mean() > 0.1


@pytest.mark.parametrize(
    ("attack", "peer"),
    [
        ("fgsm", peers.art_fgsm),
        ("ifgsm", peers.foolbox_bim),
        ("ifgsm", peers.art_bim),
        ("mifgsm", peers.art_mim),
        ("pgd", peers.foolbox_pgd),
    ],
)
def test_towards_the_least_likely_class_a_targeted_peer_gives_the_same_images(trained, attack, peer):
    climb = planned(attack, trained, 0, targeted=True)
    ours = prefixes(climb, lambda c: OURS[attack](c, "cross_entropy"))
    found = compare(
        ours,
        prefixes(climb, peer),
        climb,
        Reference(climb.model, climb.labels, "cross_entropy"),
        momentum=attack == "mifgsm",
    )
    assert found.compared >= SHARE * found.possible


@pytest.mark.parametrize("attack", OURS)
def test_an_exact_attack_in_single_precision_gives_the_images_of_double(trained, attack):
    loss = "hinge" if attack == "cw" else "exact"
    for seed in SEEDS:
        climb = planned(attack, trained, seed)
        reference = Reference(climb.model, climb.labels, loss)
        wide = replace(climb, model=reference.model, images=climb.images.double(), noise=climb.noise.double())
        single, double = (prefixes(c, lambda c: OURS[attack](c, loss)) for c in (climb, wide))
        assert double[-1].dtype == torch.float64
        found = compare(single, double, climb, reference, momentum=attack == "mifgsm")
        assert found.compared >= SHARE * found.possible


@pytest.mark.parametrize("gradient", ["exact", "cross_entropy"])
def test_the_error_of_a_single_precision_gradient_is_within_the_bound_of_rounding(trained, gradient):
    models, images, labels = trained
    for model in models.values():
        certain = Reference(model, labels, gradient).at(images)
        grad, _ = input_gradient(model, images, labels, gradient=gradient)
        within = (grad.double() - certain.grad).abs() <= certain.bound
        assert within[~certain.kink.flatten()].all()
        assert certain.kink.double().mean() < 0.05
        # Softmax cross-entropy cancels, the margin does not.
        small = (certain.grad.abs() <= certain.bound).double().mean()
        assert small < (1e-4 if gradient == "exact" else 0.04)


@pytest.mark.parametrize("attack", OURS)
def test_what_is_compared_is_what_the_catalogue_crafts(trained, attack):
    climb = planned(attack, trained, 0)
    loss = "hinge" if attack == "cw" else "exact"
    strength = AttackConfig(EPSILON, ALPHA, STEPS, STEPS)
    draws = AttackNoise(climb.noise, climb.noise[None], 0)
    crafted = craft_by_name(attack, climb.model, climb.images, climb.labels, strength=strength, draws=draws)
    assert torch.equal(crafted, OURS[attack](climb, loss))
