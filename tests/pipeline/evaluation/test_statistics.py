import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from gradshard.pipeline.evaluation.statistics import (
    Z95,
    ErrorRate,
    holm,
    mcnemar,
    mean_and_std,
    score_interval,
    tied_for_best,
)


def test_the_interval_is_the_papers_normal_approximation():
    low, high = ErrorRate(300, 10_000).interval
    assert (low, high) == (pytest.approx(0.026656, abs=1e-6), pytest.approx(0.033344, abs=1e-6))


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate_and_stays_in_range(errors_n):
    rate = ErrorRate(*errors_n)
    low, high = rate.interval
    assert 0 <= low <= rate.rate <= high <= 1


@pytest.mark.parametrize("share", [0.0, 1 / 3, 1.0])
def test_wilsons_interval_holds_the_rate_exactly_among_any_number_of_images(share):
    n = np.arange(1, 20_001)
    rate = np.round(share * n) / n
    low, high = score_interval(rate, n, Z95)
    assert (low <= rate).all()
    assert (rate <= high).all()


@pytest.mark.parametrize(
    ("errors", "tied"),
    [
        ([390, 1550], [True, False]),  # table 4, FGSM from B after 12 epochs
        ([70, 70], [True, True]),  # table 4, clean after 12 epochs
        ([100, 90], [True, True]),  # table 4, clean after 6 epochs
        ([360, 1180], [True, False]),  # table 4, own FGSM after 6 epochs
        ([0, 1, 30], [True, True, False]),
    ],
)
def test_ties_are_those_of_the_papers_table_4(errors, tied):
    assert tied_for_best([ErrorRate(e, 10_000) for e in errors]) == tied


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_scipys_and_is_never_empty(errors_n):
    errors, n = errors_n
    low, high = ErrorRate(errors, n).wilson
    expected = binomtest(errors, n).proportion_ci(method="wilson")
    assert (low, high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))
    assert low < high


def correct(n, wrong):
    values = np.ones(n, dtype=bool)
    values[list(wrong)] = False
    return values


def test_mcnemar_counts_discordant_examples_and_nothing_else():
    first, second = correct(1000, range(20)), correct(1000, range(15, 50))
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (15, 30)
    assert test.p == pytest.approx(sum(math.comb(45, k) for k in range(16)) * 2 / 2**45)
    assert mcnemar(first, first).p == 1


def test_mcnemar_sees_what_overlapping_intervals_hide():
    """Errors of one model among those of the other: paired, it is certain; as two samples it is not."""
    one, other = correct(1000, range(100)), correct(1000, range(120))
    assert tied_for_best([ErrorRate(100, 1000), ErrorRate(120, 1000)]) == [True, True]
    assert mcnemar(one, other).p < 1e-5


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_and_bonferroni_is_never_below_it(p_values):
    for p, corrected in zip(p_values, holm(p_values), strict=True):
        assert p <= corrected <= 1
        assert corrected >= min(1.0, p)
    assert min(holm(p_values)) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


def test_several_runs_have_a_mean_and_a_deviation_and_one_has_none():
    assert mean_and_std([1.0, 2.0, 6.0]).deviation == pytest.approx(math.sqrt(7))
    assert (mean_and_std([3.0]).mean, mean_and_std([3.0]).deviation, mean_and_std([3.0]).runs) == (3.0, None, 1)
