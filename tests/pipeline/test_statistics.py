import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.statistics import ErrorRate, tied_for_best


def test_the_interval_is_the_papers_normal_approximation():
    low, high = ErrorRate(300, 10_000).interval
    assert (low, high) == (pytest.approx(0.026656, abs=1e-6), pytest.approx(0.033344, abs=1e-6))


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate_and_stays_in_range(errors_n):
    rate = ErrorRate(*errors_n)
    low, high = rate.interval
    assert 0 <= low <= rate.rate <= high <= 1


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
