import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gradshard.pipeline.evaluation.paired_defences import (
    ONE_SEED,
    correct_for_number,
    paired_difference,
    paired_difference_of_rates,
    tied_for_best_over_seeds,
)
from gradshard.pipeline.evaluation.seed_variance import crossed_mean
from gradshard.pipeline.evaluation.statistics import mcnemar
from gradshard.storage.errors import GradshardError

IMAGES = 2000


def wrong(rates, seed):
    """Errors of one defence at each seed's rate; some images are harder than others, the same for all defences."""
    difficulty = np.random.default_rng(0).random(IMAGES)
    noise = np.random.default_rng(seed).normal(0, 0.05, (len(rates), IMAGES))
    return np.stack([row >= np.quantile(row, 1 - rate) for row, rate in zip(difficulty + noise, rates, strict=True)])


def test_defences_that_differ_by_less_than_their_seeds_do_show_no_difference():
    """Means of 12 and 14 %, seeds that spread by 4 points: over images alone the models differ beyond any doubt."""
    first, second = wrong([0.08, 0.16, 0.12, 0.11, 0.13], 1), wrong([0.17, 0.11, 0.14, 0.18, 0.10], 2)
    assert mcnemar(~first[0], ~second[0]).p < 1e-10
    assert mcnemar(~first.ravel(), ~second.ravel()).p < 1e-10
    found = paired_difference(first, second)
    assert found.difference == pytest.approx(-0.02)
    assert found.finding == "no difference shown"
    assert found.interval[0] < 0 < found.interval[1]


def test_defences_that_differ_by_more_than_their_seeds_do_are_told_apart():
    first, second = wrong([0.08, 0.09, 0.07, 0.08, 0.10], 1), wrong([0.17, 0.16, 0.18, 0.15, 0.19], 2)
    assert paired_difference(first, second).finding == "lower"
    assert paired_difference(second, first).finding == "higher"
    assert paired_difference(first, second).interval[1] < 0


def test_three_seeds_that_hardly_differ_are_enough_for_a_large_difference():
    assert paired_difference(wrong([0.11, 0.10, 0.11], 1), wrong([0.20, 0.21, 0.20], 2)).finding == "lower"


def test_where_only_seeds_differ_it_is_the_paired_t_test():
    one, other = np.array([0.1, 0.2, 0.15, 0.3]), np.array([0.2, 0.25, 0.15, 0.5])
    found = paired_difference(*(np.repeat(rates[:, None], 100, axis=1) for rates in (one, other)))
    assert found.p == pytest.approx(stats.ttest_rel(one, other).pvalue)


def test_where_seeds_agree_on_every_image_it_is_the_z_test_over_images():
    one, other = (np.repeat(wrong([rate], seed)[:1], 4, axis=0) for rate, seed in ((0.1, 1), (0.12, 2)))
    difference = one[0].astype(float) - other[0]
    z = difference.mean() / (difference.std(ddof=1) / np.sqrt(IMAGES))
    assert paired_difference(one, other).p == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_the_interval_excludes_no_difference_exactly_where_p_is_below_5_percent():
    for rate in (0.105, 0.11, 0.115, 0.12, 0.13, 0.14):
        first, second = wrong([0.1, 0.105, 0.095], 1), wrong([rate, rate + 0.008, rate - 0.002], 2)
        found = paired_difference(first, second)
        assert crossed_mean(first - second.astype(float)).margin(found.p) == pytest.approx(abs(found.difference))
        assert (found.interval[1] < 0) == (found.p < 0.05)


def test_equal_defences_have_p_1_and_certain_ones_a_p_above_0():
    errors = wrong([0.1, 0.2], 1)
    assert paired_difference(errors, errors).p == 1
    assert 0 < paired_difference(np.ones((5, 50)), np.zeros((5, 50))).p < 1e-99


def test_one_seed_makes_no_claim_however_large_the_difference():
    found = paired_difference(wrong([0.1], 1), wrong([0.9], 2))
    assert found.finding == ONE_SEED == "one seed: no claim about training"
    assert (found.p, found.interval) == (None, None)


def test_seeds_that_happen_to_agree_are_no_proof_that_seeds_agree():
    """Three seeds differ as little as chance allows: the p-value is that of three numbers, not of 6,000 images."""
    first, second = wrong([0.1, 0.105, 0.095], 1), wrong([0.13, 0.142, 0.126], 2)
    found = paired_difference(first, second)
    assert found.p >= stats.ttest_rel(first.mean(1), second.mean(1)).pvalue > 1e-3


def test_comparisons_are_corrected_for_the_number_of_those_that_claim_something():
    near = paired_difference(wrong([0.1, 0.105, 0.095], 1), wrong([0.13, 0.148, 0.122], 2))
    single = paired_difference(wrong([0.1], 1), wrong([0.9], 2))
    assert 0.05 / 4 < near.p < 0.05 / 2
    assert near.finding == "lower"
    two = correct_for_number([near, single, near])
    assert [found.corrected_p for found in two] == pytest.approx([2 * near.p, None, 2 * near.p])
    assert [found.finding for found in two] == ["lower", ONE_SEED, "lower"]
    assert {found.finding for found in correct_for_number([near] * 4)} == {"no difference shown"}


def test_a_defence_is_tied_for_best_unless_it_is_shown_to_err_more():
    best, near = wrong([0.08, 0.16, 0.12, 0.11, 0.13], 1), wrong([0.17, 0.11, 0.14, 0.18, 0.10], 2)
    far = wrong([0.3, 0.35, 0.31, 0.33, 0.32], 3)
    assert tied_for_best_over_seeds([far, near, best]) == [False, True, True]
    assert tied_for_best_over_seeds([far[:1], near[:1], best[:1]]) == [True, True, True]
    assert tied_for_best_over_seeds([best]) == [True]


def test_defences_on_other_seeds_or_images_are_refused():
    with pytest.raises(GradshardError, match=r"\(2, 2000\) and \(3, 2000\): compare them on the seeds and images"):
        paired_difference(wrong([0.1, 0.2], 1), wrong([0.1, 0.2, 0.3], 2))


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 40))
def test_errors_known_by_number_alone_never_have_a_narrower_interval(seed, seeds, images):
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, seeds, images)) < rng.random((2, seeds, 1))
    known = paired_difference(first, second)
    found = paired_difference_of_rates(first.mean(1), second.mean(1), images=images)
    assert found.difference == pytest.approx(known.difference)
    assert found.interval[0] <= known.interval[0] + 1e-9
    assert found.interval[1] >= known.interval[1] - 1e-9
    assert found.p >= known.p - 1e-9


def test_errors_known_by_number_alone_tell_large_differences_and_nothing_of_one_seed():
    rates = [0.08, 0.09, 0.07, 0.08, 0.10], [0.17, 0.16, 0.18, 0.15, 0.19]
    assert paired_difference_of_rates(*rates, images=IMAGES).finding == "lower"
    assert paired_difference_of_rates(*rates, images=20).finding == "no difference shown"
    assert paired_difference_of_rates([0.1], [0.9], images=IMAGES).finding == ONE_SEED


def test_one_image_alone_compares_nothing():
    with pytest.raises(GradshardError, match="errors on one image alone"):
        paired_difference(np.ones((3, 1)), np.zeros((3, 1)))
    with pytest.raises(GradshardError, match="errors on one image alone"):
        paired_difference_of_rates([0.1, 0.2], [0.1, 0.3], images=1)
    with pytest.raises(GradshardError, match="2 error rates of one defence and 3 of the other"):
        paired_difference_of_rates([0.1, 0.2], [0.1, 0.3, 0.2], images=10)
