"""An examination adds up over blocks, counts worst cases by example, and leaves out what attacked nobody."""

import dataclasses
import json
from itertools import pairwise

import pytest
import torch

from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.evaluation.examination import (
    NOISE,
    BlockFindings,
    ExaminationPlan,
    Reach,
    conclude,
    examine_block,
)
from gradshard.pipeline.types import CLEAN, SELF

PLAN = ExaminationPlan(
    AttackConfig(0.2, 0.1, 3, pgd_steps=4), attacks=("fgsm", "pgd"), transferred=("fgsm",), sources=("S",)
)


@pytest.fixture
def models(linear_model):
    return {SELF: linear_model(classes=4, seed=1).eval(), "S": linear_model(classes=4, seed=2).eval()}


@pytest.fixture
def examples(models):
    """Images, most of which the model has right."""
    images = torch.rand(60, 1, 3, 4, generator=torch.Generator().manual_seed(3))
    labels = models[SELF](images).argmax(1)
    labels[:5] = (labels[:5] + 1) % 4
    return images, labels


def block(models, examples, rows, number):
    return examine_block(models, *(part[rows] for part in examples), PLAN, block=number)


@pytest.mark.parametrize("epsilon", [0.3, 8 / 255, 16 / 255, 0.25])
def test_the_sweep_holds_no_epsilon_twice(epsilon):
    swept = dataclasses.replace(PLAN, strength=AttackConfig(epsilon, epsilon / 2, 3)).epsilons
    assert epsilon in swept
    assert all(after - before > 1e-6 for before, after in pairwise(swept))


def test_every_attack_is_measured_once_and_the_worst_case_is_that_of_each_example(models, examples):
    found = conclude(PLAN, [block(models, examples, slice(0, 60), 0)])
    measured = [(result.attack, result.source) for result in found.results]
    assert measured == [(CLEAN, ""), (NOISE, SELF), ("fgsm", SELF), ("fgsm", "S"), ("pgd", SELF)]
    assert found.error(CLEAN).errors == 5
    assert max(result.error.errors for result in found.results) <= found.worst_case.errors < 60
    assert found.error("fgsm").errors == found.probe.errors["fgsm"]
    assert found.error("fgsm", "S").errors == found.probe.transferred[0.2]
    assert not found.masked


def test_the_worst_case_is_no_single_attack_where_attacks_fool_different_examples(models, examples):
    whole = block(models, examples, slice(0, 60), 0)
    correct = whole.correct.copy()
    correct[:] = True
    correct[2, :10] = correct[3, 5:20] = False
    assert conclude(PLAN, [dataclasses.replace(whole, correct=correct)]).worst_case.errors == 20


def test_blocks_survive_json_and_add_up(models, examples):
    parts = [block(models, examples, slice(0, 30), 0), block(models, examples, slice(30, 60), 1)]
    restored = [BlockFindings.restore(json.loads(json.dumps(part.record()))) for part in parts]
    assert conclude(PLAN, restored) == conclude(PLAN, parts)
    whole = conclude(PLAN, [block(models, examples, slice(0, 60), 0)])
    for attack in (CLEAN, "fgsm"):  # the others draw at random, block by block
        assert conclude(PLAN, parts).error(attack) == whole.error(attack)


def test_attacks_keep_to_the_ball_and_one_that_does_not_is_flagged(models, examples):
    whole = block(models, examples, slice(0, 60), 0)
    reaches = [reach for reach in whole.reaches if reach]
    assert len(reaches) == 4
    assert all(reach.furthest <= 0.2 + 1e-6 and reach.low >= 0 and reach.high <= 1 for reach in reaches)
    far = Reach(furthest=0.4, low=0.0, high=1.0, violations=7)
    found = conclude(PLAN, [dataclasses.replace(whole, reaches=(*whole.reaches[:-1], far))])
    assert [(flag.name, flag.figures) for flag in found.flags] == [("out-of-bounds", "7 examples")]


def test_what_a_source_crafted_without_a_gradient_is_left_out(models, examples):
    whole = block(models, examples, slice(0, 60), 0)
    found = conclude(PLAN, [dataclasses.replace(whole, undefined={SELF: 0, "S": 3})])
    assert dict(found.withheld) == {"S": 3}
    assert "S" not in {result.source for result in found.results}


def test_the_sweep_goes_from_0_to_1_through_epsilon():
    for epsilon in (8 / 255, 0.3, 1.0):
        plan = dataclasses.replace(PLAN, strength=AttackConfig(epsilon, epsilon / 2, 3))
        assert plan.epsilons == sorted(set(plan.epsilons))
        assert (plan.epsilons[0], plan.epsilons[-1]) == (0.0, 1.0)
        assert epsilon in plan.epsilons
