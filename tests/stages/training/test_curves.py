"""Curves of a training run."""

import math

import pytest

from gradshard.pipeline.training.trainer import TrainMetrics
from gradshard.stages.training.curves import Curves


def curves_that_end_at(clean: float | None, adversarial: float | None) -> Curves:
    losses = [(0.1, 0.1), (clean, adversarial)]
    return Curves([TrainMetrics(step, float(step), *its, 0.0) for step, its in enumerate(losses)])


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_loss_shows_learning_if_it_is_below_that_of_guessing(classes):
    guess = math.log(classes)
    assert curves_that_end_at(0.9 * guess, 2 * guess).shows_learning(classes), "the clean loss counts"
    assert curves_that_end_at(None, 0.9 * guess).shows_learning(classes)
    for loss in (0.999 * guess, guess, 1e5):
        assert not curves_that_end_at(loss, None).shows_learning(classes)
        assert not curves_that_end_at(None, loss).shows_learning(classes)


def test_the_loss_of_guessing_is_that_of_all_classifiers_that_are_trained():
    guess = 1.4 * math.log(10)
    assert curves_that_end_at(0.9 * guess, None).shows_learning(10, classifiers=1.4)
    assert not curves_that_end_at(guess, None).shows_learning(10, classifiers=1.4)
