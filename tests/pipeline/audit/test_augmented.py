"""Signs that move with their image: exact for a model that moves with its input, wrong for one that does not."""

import pytest
import torch
from torch import nn

from gradshard.pipeline.audit.augmented import signs_held
from gradshard.pipeline.gradients.augmentation import Augmentation, CropFlip
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.signs import to_unit_range


class Pixelwise(nn.Module):
    """Two logits, the sums of two functions of each pixel: mirrored or shifted, the image has the same logits."""

    def forward(self, images):
        flat = images.flatten(1)
        return torch.stack([(flat**2).sum(1), 0.9 * flat.sum(1)], dim=1)


@pytest.fixture
def images():
    return torch.randint(0, 256, (50, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def signs_of(model, images, labels):
    grad, _ = input_gradient(model, to_unit_range(images), labels)
    return grad.sign().to(torch.int8)


def test_signs_hold_wherever_a_model_moves_with_its_input(images):
    model, labels = Pixelwise(), torch.zeros(50, dtype=torch.int64)
    views = Augmentation(padding=2, flip=True).draw(50, seed=0, step=0)
    held = signs_held(model, images, signs_of(model, images, labels), labels, views, gradient="exact")
    assert torch.equal(held.agreement, torch.ones(50, dtype=torch.float64))
    assert (held.gain < 1).any(), "what was padded has a gradient too, but no sign"


def test_signs_of_a_model_with_fixed_places_do_not_hold(images):
    torch.manual_seed(0)
    model, labels = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), torch.zeros(50, dtype=torch.int64)
    signs = signs_of(model, images, labels)
    still = CropFlip(torch.zeros(50, 2, dtype=torch.int64), torch.zeros(50, dtype=torch.bool))
    assert (signs_held(model, images, signs, labels, still, gradient="exact").agreement == 1).all()
    mirrored = CropFlip(still.shifts, torch.ones(50, dtype=torch.bool))
    held = signs_held(model, images, signs, labels, mirrored, gradient="exact")
    assert 0.2 < held.agreement.mean() < 0.8
    assert held.gain.mean() < 0.8
