"""Models that mask their gradient, each in another way, and some that do not: the flags are right about each."""

import functools

import pytest

import gradshard as gs
from tests.helpers import zoo

pytestmark = pytest.mark.slow

HIDDEN = {"black-box-beats-white-box", "correct-at-full-epsilon", "zero-gradients"}
# By member, the flags with the exact gradient and with fp32 cross-entropy; that there is none is a promise too.
FLAGS = {
    "A": (set(), set()),
    "PGD": (set(), set()),
    "distilled": (set(), HIDDEN),
    "saturated": (HIDDEN | {"iterative-weaker-than-single-step"}, HIDDEN | {"iterative-weaker-than-single-step"}),
    "quantised": (HIDDEN, HIDDEN),
    "stochastic": (set(), set()),
}


@pytest.fixture(scope="module")
def source(digits):
    return zoo.source(digits)


@pytest.fixture(scope="module")
def measured(digits, source):
    """Measure a member, once."""
    return functools.cache(lambda member: zoo.measure(member, source, digits))


def test_every_member_is_in_the_table():
    assert {*FLAGS, "RAND+FGSM"} == set(zoo.MEMBERS)


@pytest.mark.parametrize("member", list(FLAGS))
def test_the_flags_of_each_member_are_those_it_should_raise(measured, member):
    found = measured(member).examined
    assert tuple({flag.name for flag in found[gradient].flags} for gradient in zoo.GRADIENTS) == FLAGS[member]


@pytest.mark.parametrize("member", [name for name, raised in FLAGS.items() if any(raised)])
def test_where_a_gradient_is_masked_transferred_examples_break_what_its_own_do_not(measured, member):
    for found in measured(member).examined.values():
        if found.masked:
            assert found.error("fgsm", "S").wilson[0] > found.error("fgsm").wilson[1]


def test_training_on_rand_fgsm_hides_from_one_step_at_most_and_not_from_many(measured):
    found = measured("RAND+FGSM")
    for examined in found.examined.values():
        # FGSM of S beats its own, at the edge of what 1,000 digits can show; its own I-FGSM beats both.
        assert {flag.name for flag in examined.flags} <= {"black-box-beats-white-box"}
        assert examined.error("fgsm").rate < examined.error("fgsm", "S").rate < examined.error("ifgsm").rate
    assert found.strong["pgd"].rate > 0.6


@pytest.mark.parametrize("member", [name for name in zoo.MEMBERS if name != "PGD"])
def test_autoattack_breaks_every_member_but_the_robust_one(measured, member):
    assert measured(member).strong["autoattack"].rate > 0.8 > measured("PGD").strong["autoattack"].rate


def test_a_forest_has_no_gradient_and_falls_to_transferred_examples(digits, source):
    forest, examples = zoo.Forest(digits).eval(), zoo.unseen(digits, rows=1000)
    with pytest.raises(gs.GradshardError, match="lets no gradient through to the images"):
        gs.examine(forest, *examples, epsilon=zoo.EPSILON)
    found = gs.evaluate({"forest": forest}, *examples, attacks=["fgsm"], epsilon=zoo.EPSILON, sources={"S": source})
    clean, transferred = (result.error.rate for result in found)
    assert clean < 0.1 < 0.3 < transferred
