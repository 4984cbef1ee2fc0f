import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from gradshard.pipeline.evaluation.seed_variance import crossed_mean, training_error_rate
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.storage.errors import GradshardError

ERRORS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12))


def wrong(rates, images, seed=0):
    """Errors at given rates, independent from image to image."""
    return np.random.default_rng(seed).random((len(rates), images)) < np.array(rates)[:, None]


def test_the_parts_of_the_variance_are_those_of_the_two_way_analysis_written_out():
    values = wrong([0.1, 0.3, 0.2], 50).astype(float)
    seeds, images = values.shape
    of_seeds, of_images = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    left = values - of_seeds - of_images + values.mean()
    a = images * ((of_seeds - values.mean()) ** 2).sum() / (seeds - 1)
    b = seeds * ((of_images - values.mean()) ** 2).sum() / (images - 1)
    e = (left**2).sum() / ((seeds - 1) * (images - 1))
    found = crossed_mean(values)
    assert a > e
    assert found.mean == pytest.approx(values.mean())
    assert found.seed_variance == pytest.approx((a - e) / (seeds * images))
    assert found.image_variance == pytest.approx(b / (seeds * images))


def test_where_only_seeds_differ_the_margin_is_students():
    """Every image is one and the same, so the rates of the seeds are all that was seen."""
    rates = np.array([0.1, 0.2, 0.15, 0.3])
    margin = crossed_mean(np.repeat(rates[:, None], 100, axis=1)).margin()
    assert margin == pytest.approx(stats.t.ppf(0.975, 3) * rates.std(ddof=1) / 2)


def test_where_seeds_agree_on_every_image_they_count_as_one():
    one = wrong([0.2], 1000)
    found = training_error_rate(np.repeat(one, 5, axis=0))
    assert found.interval == pytest.approx(ErrorRate(int(one.sum()), 1000).wilson, abs=1e-4)
    assert found.interval == pytest.approx(found.image_interval, abs=1e-4)


def test_seeds_that_differ_widen_the_interval_and_more_of_them_narrow_it():
    rates = [0.05, 0.15, 0.1]
    few, many = training_error_rate(wrong(rates, 1000)), training_error_rate(wrong(rates * 3, 1000))

    def width(interval):
        return interval[1] - interval[0]

    assert width(few.interval) > 8 * width(few.image_interval)
    assert width(many.interval) < width(few.interval) / 3
    assert few.mean == pytest.approx(0.1, abs=0.02)
    assert few.deviation == pytest.approx(0.05, abs=0.02)


def test_one_seed_has_an_interval_for_its_images_and_none_for_training():
    errors = wrong([0.1], 500)
    found = training_error_rate(errors)
    assert (found.interval, found.deviation, found.seeds) == (None, None, 1)
    assert found.image_interval == pytest.approx(ErrorRate(int(errors.sum()), 500).wilson)


def test_without_any_error_the_images_count_once():
    found = training_error_rate(np.zeros((5, 1000), dtype=bool))
    assert found.interval == pytest.approx(ErrorRate(0, 1000).wilson)


def test_many_cells_at_once_get_what_each_gets_alone():
    cells = np.random.default_rng(0).random((2, 3, 4, 60)) < 0.3
    together = crossed_mean(cells)
    for place in np.ndindex(2, 3):
        alone = crossed_mean(cells[place])
        assert together.mean[place] == pytest.approx(alone.mean)
        assert together.margin()[place] == pytest.approx(alone.margin())


@given(ERRORS)
def test_the_interval_holds_the_rate_and_stays_in_range(errors):
    found = training_error_rate(errors)
    for low, high in (found.interval, found.image_interval):
        assert -1e-12 <= low <= found.mean + 1e-12
        assert found.mean - 1e-12 <= high <= 1 + 1e-12
        assert math.isfinite(low + high)


@given(ERRORS, st.randoms(use_true_random=False))
def test_neither_the_order_of_seeds_nor_that_of_images_matters(errors, random):
    seeds, images = (random.sample(range(n), n) for n in errors.shape)
    shuffled = training_error_rate(errors[seeds][:, images])
    assert shuffled.interval == pytest.approx(training_error_rate(errors).interval, abs=1e-9)


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (np.zeros(5), r"shape \(5,\): give \(seeds, images\)"),
        (np.zeros((2, 0)), r"shape \(2, 0\)"),
        (np.full((2, 3), 2), r"outside of \[0, 1\]"),
        (np.full((2, 3), np.nan), r"outside of \[0, 1\]"),
    ],
)
def test_what_is_no_array_of_errors_is_refused(errors, said):
    with pytest.raises(GradshardError, match=said):
        training_error_rate(errors)
