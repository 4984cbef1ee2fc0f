"""Crops and flips move an image and its signs alike, as plain loops over pixels would."""

import numpy as np
import pytest
import torch

from gradshard.pipeline.gradients.augmentation import Augmentation, CropFlip


def by_hand(values, shift, flip):
    """Pad, crop and mirror one (C, H, W) array as an image library would."""
    _, height, width = values.shape
    pad = max(abs(s) for s in shift)
    padded = np.pad(values, ((0, 0), (pad, pad), (pad, pad)))
    cropped = padded[:, pad + shift[0] : pad + shift[0] + height, pad + shift[1] : pad + shift[1] + width]
    return cropped[:, :, ::-1] if flip else cropped


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_view_is_a_crop_of_the_padded_image_then_mirrored(dtype):
    values = torch.randint(1, 255, (40, 3, 6, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    views = Augmentation(padding=2, flip=True).draw(40, seed=3, step=4)
    found = views.apply(values)
    assert found.dtype == dtype
    for row in range(40):
        expected = by_hand(values[row].numpy(), views.shifts[row].tolist(), bool(views.flips[row]))
        assert np.array_equal(found[row].numpy(), expected)
    assert views.shifts.min() == -2
    assert views.shifts.max() == 2
    assert 5 < views.flips.sum() < 35


def test_signs_move_with_the_image_they_belong_to():
    images = torch.randint(0, 255, (10, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    signs = (images - 127).sign()
    views = Augmentation(padding=3, flip=True).draw(10, seed=0, step=0)
    moved = views.apply(images)
    assert torch.equal(views.apply(signs), torch.where(moved > 0, (moved - 127).sign(), 0.0))


def test_views_are_a_function_of_seed_and_step():
    augmentation = Augmentation(padding=4, flip=True)
    one, same, other = (augmentation.draw(32, seed=1, step=step) for step in (5, 5, 6))
    assert torch.equal(one.shifts, same.shifts)
    assert torch.equal(one.flips, same.flips)
    assert not torch.equal(one.shifts, other.shifts)


def test_without_padding_and_flips_nothing_is_drawn():
    assert not Augmentation()
    assert Augmentation(padding=1)
    assert Augmentation(flip=True)
    views = CropFlip(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.bool))
    values = torch.rand(3, 2, 4, 4)
    assert torch.equal(views.apply(values), values)


def test_undone_a_view_lies_where_it_was_taken_from():
    values = torch.randint(1, 255, (40, 3, 6, 5), generator=torch.Generator().manual_seed(0))
    hidden = -values
    views = Augmentation(padding=2, flip=True).draw(40, seed=3, step=4)
    found = views.undo(views.apply(values), hidden)
    for row in range(40):
        down, right = views.shifts[row].tolist()
        seen = torch.zeros(6, 5, dtype=torch.bool)
        seen[max(down, 0) : 6 + min(down, 0), max(right, 0) : 5 + min(right, 0)] = True
        assert torch.equal(found[row], torch.where(seen, values[row], hidden[row]))
