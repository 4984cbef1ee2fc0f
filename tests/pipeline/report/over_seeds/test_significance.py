import numpy as np
import pytest

from gradshard.pipeline.evaluation.paired_defences import paired_difference
from gradshard.pipeline.evaluation.statistics import mcnemar
from gradshard.pipeline.report.over_seeds.significance import compare_models, compare_training
from tests.helpers.error_matrices import error_matrix, wrong_images

GROUPS = {"12 epochs": ["first", "second"]}
WRONG = {
    ("first", "B", "fgsm"): np.arange(1000)[None] < 200,
    ("second", "B", "fgsm"): np.arange(1000)[None] < 100,
    ("first", "", "clean"): np.arange(1000)[None] < 10,
    ("second", "", "clean"): np.arange(1000)[None, ::-1] < 11,
}
NEAR = [wrong_images([0.08, 0.16, 0.12, 0.11, 0.13], 1), wrong_images([0.17, 0.11, 0.14, 0.18, 0.10], 2)]
FAR = [NEAR[0], wrong_images([0.3, 0.35, 0.31, 0.33, 0.32], 3)]


@pytest.fixture
def compared():
    return compare_models(GROUPS, "B", error_matrix(WRONG, [10]))


def over_seeds(clean, transferred, **options):
    wrong = {("first", "", "clean"): clean[0], ("second", "", "clean"): clean[1]}
    wrong |= {("first", "B", "fgsm"): transferred[0], ("second", "B", "fgsm"): transferred[1]}
    return compare_training(GROUPS, "B", error_matrix(wrong, **options))


def test_models_are_compared_where_both_were_measured_on_the_same_examples(compared):
    assert [(c.attack, c.only_first, c.only_second) for c in compared] == [("Clean", 10, 11), ("FGSM from B", 100, 0)]


def test_a_difference_is_named_only_if_it_is_no_likely_chance(compared):
    assert [c.verdict for c in compared] == ["no difference shown", "second errs less"]
    assert compared[1].p_text == "< 1e-12"


def test_p_values_are_corrected_for_their_number(compared):
    alone = mcnemar(~WRONG["first", "B", "fgsm"][0], ~WRONG["second", "B", "fgsm"][0])
    assert compared[1].p == pytest.approx(2 * alone.p)


def test_models_are_compared_on_the_images_that_both_met():
    sampled = WRONG | {("second", "B", "fgsm"): np.arange(500)[None] < 100}
    _, transferred = compare_models(GROUPS, "B", error_matrix(sampled, [10]))
    assert (transferred.only_first, transferred.only_second) == (100, 0)


def test_over_seeds_two_that_differ_by_less_than_their_seeds_do_show_no_difference():
    near, far = over_seeds(NEAR, FAR)
    assert mcnemar(~NEAR[0][0], ~NEAR[1][0]).p < 1e-10, "two of their models differ beyond any doubt"
    assert (near.attack, near.points, near.verdict) == ("Clean", "-2.0", "no difference shown")
    assert (far.attack, far.points, far.verdict) == ("FGSM from B", "-20.2", "first errs less")
    assert (far.over, near.interval[0]) == ("5 seeds, 2000 images", "-")
    turned = over_seeds(NEAR[::-1], FAR[::-1])
    assert [c.verdict for c in turned] == ["no difference shown", "first errs less".replace("first", "second")]


def test_over_seeds_p_values_are_corrected_for_their_number():
    near, far = over_seeds(NEAR, FAR)
    assert far.measured.corrected_p == pytest.approx(2 * paired_difference(*FAR).p)
    assert near.measured.corrected_p == pytest.approx(paired_difference(*NEAR).p)


def test_two_models_that_no_seed_changes_are_compared_over_images_alone():
    same = [np.repeat(rows[:1], 5, axis=0) for rows in FAR]
    assert {c.over for c in over_seeds(same, same, steady=("first", "second"))} == {"2000 images"}


def test_what_is_known_by_number_alone_is_not_compared():
    assert over_seeds(NEAR, FAR, known=False) == []
    assert compare_models(GROUPS, "B", error_matrix(WRONG, [10], known=False)) == []
