"""AutoAttack on small models: what it reaches, what it leaves alone, and what is said where it cannot run."""

import logging
import sys

import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.attacks.autoattack import autoattack, check_autoattack
from gradshard.pipeline.attacks.crafting import craft_by_name, sample_noise
from gradshard.pipeline.attacks.registry import ATTACKS, AttackConfig
from gradshard.pipeline.gradients.perturb import leaves_ball
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.storage.errors import GradshardError
from tests.helpers.trained import train_on

EPSILON = 0.1
STEPS = ATTACKS["autoattack"].steps


@pytest.fixture(scope="module")
def undefended(digits):
    return train_on(digits, "D", seed=0)


@pytest.fixture(scope="module")
def batch(digits):
    images, labels = digits["test"]
    return to_unit_range(torch.from_numpy(images[:40])), torch.from_numpy(labels[:40]).long()


def crafted(attack, model, images, labels, *, seed=0):
    draws = sample_noise(images.shape, 1, generator=torch.Generator().manual_seed(seed))
    return craft_by_name(attack, model, images, labels, strength=AttackConfig(EPSILON, 0.02, 10), draws=draws)


def wrong(model, images, labels):
    return model(images).argmax(1) != labels


@pytest.mark.slow
def test_on_an_undefended_model_it_is_at_least_as_strong_as_pgd_within_the_ball(undefended, batch):
    images, labels = batch
    clean = wrong(undefended, images, labels)
    examples = crafted("autoattack", undefended, images, labels)
    fooled = wrong(undefended, examples, labels)
    assert fooled.sum() >= wrong(undefended, crafted("pgd", undefended, images, labels), labels).sum() > clean.sum()
    assert not leaves_ball(examples, images, EPSILON).any()
    moved = (examples != images).flatten(1).any(1)
    # What is wrong already, or was not fooled, stays.
    assert torch.equal(moved, fooled & ~clean)
    assert moved.sum() > 10


@pytest.mark.slow
def test_the_same_seed_gives_the_same_examples_and_the_process_is_left_alone(undefended, batch):
    images, labels = batch[0][:8], batch[1][:8]
    tracing, level = sys.gettrace(), logging.getLogger("auto-attack").level
    state = torch.random.get_rng_state()
    one = crafted("autoattack", undefended, images, labels)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (sys.gettrace(), logging.getLogger("auto-attack").level) == (tracing, level)
    torch.rand(5)
    assert torch.equal(crafted("autoattack", undefended, images, labels), one)
    assert not torch.equal(crafted("autoattack", undefended, images, labels, seed=1), one)


def test_colour_images_in_any_layout_and_parameters_that_take_gradients(batch):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    model.to(memory_format=torch.channels_last)
    images = torch.rand(6, 3, 8, 8, generator=generator)
    labels = model(images).argmax(1)
    found = [
        autoattack(model, layout, labels, epsilon=0.3, seed=1)
        for layout in (images, images.contiguous(memory_format=torch.channels_last))
    ]
    assert torch.equal(*found)
    assert wrong(model, found[0], labels).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_takes_the_steps_that_the_results_name():
    from pyautoattack import AutoAttack

    attack = AutoAttack(models.create_model("D", (1, 28, 28), 10, seed=0), seed=0)
    assert attack.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert attack.apgd.n_iter == attack.apgd_targeted.n_iter == attack.fab.n_iter == STEPS


def test_where_it_cannot_run_one_sentence_says_why(monkeypatch):
    with pytest.raises(GradshardError, match=r"needs 4 classes, but there are 3: leave it out of the attacks$"):
        check_autoattack(3)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(
        GradshardError, match=r"needs the package pyautoattack: pip install 'gradshard\[autoattack\]'"
    ) as told:
        check_autoattack(10)
    assert "evaluation.attacks" not in str(told.value), "it may have been called from Python"


def test_a_missing_package_is_told_before_anything_is_attacked(copied_project, gradshard, monkeypatch):
    copied_project.edit(lambda params: params["evaluation"]["attacks"].update(autoattack=["A"]))
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    monkeypatch.setattr("gradshard.stages.jobs.error_rates.attack", lambda *_: pytest.fail("it went on"))
    code, said = gradshard(copied_project, "evaluate")
    assert code == 2
    assert "pip install 'gradshard[autoattack]'" in said


@pytest.mark.slow
def test_it_takes_part_in_the_worst_case_of_the_matrix(copied_project, gradshard):
    from gradshard.storage.formats.results import read_matrix

    copied_project.edit(lambda params: params["evaluation"]["attacks"].update(autoattack=["A"]))
    copied_project.edit(lambda params: params["evaluation"].update(targets=["A"], gradients=["exact", "cross_entropy"]))
    assert gradshard(copied_project, "evaluate")[0] == 0
    rows = {
        (r["attack"], r["source"], r["gradient"]): r
        for r in read_matrix(copied_project.path / "evaluation/10/matrix.parquet")
    }
    own = [rows["autoattack", "A", gradient] for gradient in ("exact", "cross_entropy")]
    assert [(row["steps"], row["alpha"]) for row in own] == [(STEPS, 0.0)] * 2
    assert own[0]["errors"] == own[1]["errors"] >= rows["fgsm", "A", "exact"]["errors"]
    assert rows["worst_case", "any", "exact"]["errors"] >= own[0]["errors"]
    assert gradshard(copied_project, "report")[0] == 0
