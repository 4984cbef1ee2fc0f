"""Epsilons are drawn from the truncated normal that they are said to be, and leave something after random steps."""

import numpy as np
import pytest
from scipy import stats

from gradshard.pipeline.training.adversary import truncated_normal
from gradshard.storage.errors import GradshardError
from tests.helpers.trainers import adversary


def test_epsilons_follow_the_normal_of_deviation_half_truncated_to_its_range():
    """Kurakin et al. 2017: N(0, 8) truncated to [0, 16]; a mean of 5.8 of 255 (reference figure)."""
    drawn = np.concatenate([truncated_normal(5_000, 16 / 255, seed=1, step=step) for step in range(20)])
    assert drawn.dtype == np.float32
    assert (drawn >= 0).all()
    assert (drawn <= np.float32(16 / 255)).all()
    expected = stats.truncnorm(a=0, b=2, scale=8 / 255)
    assert stats.kstest(drawn, expected.cdf).pvalue > 1e-3
    assert 255 * drawn.mean() == pytest.approx(5.8, abs=0.05)
    assert drawn.std() == pytest.approx(expected.std(), rel=0.02)


def test_epsilons_are_a_function_of_seed_and_step_and_differ_by_example():
    one = truncated_normal(64, 0.3, seed=1, step=7)
    assert np.array_equal(one, truncated_normal(64, 0.3, seed=1, step=7))
    assert len(np.unique(one)) == 64
    for seed, step in ((2, 7), (1, 8)):
        assert not np.array_equal(one, truncated_normal(64, 0.3, seed=seed, step=step))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"epsilon_law": "truncated_normal"}, "more than some of the epsilons that truncated_normal draws: choose"),
        ({"alpha": 0.3}, "epsilon is 0.3, but the attack rand_fgsm steps 0.3 at random before it follows the signs"),
    ],
)
def test_a_model_whose_own_random_step_would_leave_nothing_of_an_epsilon_is_refused(changed, told):
    with pytest.raises(GradshardError, match=told):
        adversary(sources=("self",), attack="rand_fgsm", **changed)
