import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradshard.pipeline.training.schedule import source, turn

SOURCES = ["self", "A", "C", "D"]


def sources(kind, *, seed=0, epochs=1, batches=4_000, **weighed):
    return [
        source(kind, SOURCES, seed=seed, epoch=e, batch=b, batches=batches, **weighed)
        for e in range(epochs)
        for b in range(batches)
    ]


def test_random_is_uniform_over_the_sources():
    counts = np.unique(sources("random"), return_counts=True)[1]
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3  # the 0.999 quantile for 3 degrees of freedom


def test_random_draws_of_successive_batches_are_independent():
    drawn = [SOURCES.index(name) for name in sources("random")]
    pairs = np.zeros((4, 4))
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):
        pairs[one, other] += 1
    assert ((pairs - 125) ** 2 / 125).sum() < 37.7  # the 0.999 quantile for 15 degrees of freedom


@given(st.integers(0, 2**31), st.integers(0, 99), st.integers(0, 999))
def test_a_draw_depends_on_seed_epoch_and_batch_alone(seed, epoch, batch):
    one, other = (source("random", SOURCES, seed=seed, epoch=epoch, batch=batch, batches=n) for n in (1000, 2000))
    assert one == other


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epochs": 2}])
def test_seed_and_epoch_change_the_draws(changed):
    base = sources("random", batches=100)
    assert sources("random", batches=100, **changed)[-100:] != base


@pytest.mark.parametrize("batches", [10, 63])
def test_rotation_gives_each_source_every_nth_batch_across_epochs(batches):
    rotated = sources("rotate", epochs=3, batches=batches)
    assert rotated == [SOURCES[i % 4] for i in range(3 * batches)]


def test_a_model_without_other_sources_always_crafts_itself():
    assert {source("random", ["self"], seed=s, epoch=0, batch=s, batches=9) for s in range(50)} == {"self"}


def test_random_draws_a_source_as_often_as_it_weighs():
    counts = np.array([sources("random", weights={"A": 3.5, "self": 0.5}).count(name) for name in SOURCES])
    expected = 4000 * np.array([0.5, 3.5, 1, 1]) / 6
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_equal_weights_draw_what_no_weights_draw():
    assert sources("random", weights=dict.fromkeys(SOURCES, 2.0), batches=200) == sources("random", batches=200)


def test_rotation_gives_a_source_as_many_batches_in_turn_as_it_weighs():
    turns = ["self", "A", "A", "A", "C", "D", "D"]
    rotated = sources("rotate", weights={"A": 3, "D": 2}, epochs=2, batches=25)
    assert rotated == [turns[i % 7] for i in range(50)]


@given(st.integers(0, 2**31), st.integers(0, 99), st.integers(1, 15))
def test_so_many_epochs_as_there_are_copies_show_each_once(seed, first, copies):
    assert sorted(turn(seed=seed, epoch=first + epoch) % copies for epoch in range(copies)) == list(range(copies))
