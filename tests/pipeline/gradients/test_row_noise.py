"""Random numbers of rows: they follow from seed, row and copy, whatever else is drawn with them."""

import numpy as np
import pytest
import torch

from gradshard.pipeline.gradients.row_noise import row_classes, row_seed, row_signs, row_uniform

ROWS = np.array([3, 70_000, 5])


def shape_of(rows):
    return torch.Size((len(rows), 3, 5, 7))


@pytest.mark.parametrize("draw", [row_signs, row_uniform])
def test_a_rows_draw_does_not_depend_on_the_rows_beside_it(draw):
    together = draw(shape_of(ROWS), ROWS, seed=1, copy=2)
    alone = [draw(shape_of([row]), [row], seed=1, copy=2)[0] for row in ROWS]
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("draw", [row_signs, row_uniform])
def test_another_seed_row_or_copy_gives_another_draw(draw):
    shape = shape_of([0])
    drawn = [draw(shape, [row], seed=seed, copy=copy) for row in (0, 1) for seed in (0, 1) for copy in (0, 1)]
    assert all(not torch.equal(one, other) for at, one in enumerate(drawn) for other in drawn[:at])


def test_signs_are_even_and_starts_uniform():
    rows = np.arange(200)
    signs = row_signs(shape_of(rows), rows, seed=0, copy=0)
    starts = row_uniform(shape_of(rows), rows, seed=0, copy=0)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.03
    assert abs(float(starts.mean())) < 0.02
    assert float(starts.square().mean()) == pytest.approx(1 / 3, abs=0.01)
    assert -1 <= float(starts.min()) < -0.99 < 0.99 < float(starts.max()) < 1


def test_the_numbers_are_philoxs_own_so_that_other_languages_can_draw_them():
    raw = np.random.Philox(key=[9, 0], counter=[0, 4, 1, 0]).random_raw(1)
    bits = [int(raw[0]) >> (8 * (at // 8)) >> (7 - at % 8) & 1 for at in range(64)]
    assert row_signs(torch.Size((1, 1, 8, 8)), [4], seed=9, copy=1).flatten().tolist() == [2 * bit - 1 for bit in bits]


def test_a_random_class_is_never_the_label_and_every_other_one_is_drawn():
    rows, labels = np.arange(500), torch.arange(500) % 10
    drawn = row_classes(labels, rows, seed=0, classes=10)
    assert not (drawn == labels).any()
    assert set(((drawn - labels) % 10).tolist()) == set(range(1, 10))


def test_seeds_fit_everybodys_generators():
    assert all(0 <= row_seed(row, seed=2**62, copy=3) < 2**31 for row in range(100))
