"""Examples stay within the budget to the last bit."""

import pytest
import torch

from gradshard.pipeline.evaluation.budget import furthest, hold_budget
from gradshard.storage.errors import GradshardError


def uniform(generator: torch.Generator) -> torch.Tensor:
    return torch.rand((50, 3, 8, 8), generator=generator)


@pytest.mark.parametrize("epsilon", [0.3, 8 / 255, 4 / 255])
def test_no_pixel_is_further_out_than_epsilon_however_it_is_subtracted(epsilon):
    generator = torch.Generator().manual_seed(1)
    images = uniform(generator)
    examples = (images + epsilon * (uniform(generator) - 0.5).sign()).clamp(0, 1)
    assert furthest(examples, images) > epsilon
    held = hold_budget(examples, images, epsilon)
    assert furthest(held, images) <= epsilon
    assert float((held - images).abs().max()) <= epsilon
    assert float((held - examples).abs().max()) <= 1.2e-7
    assert (held.min(), held.max()) == (examples.min(), examples.max()) == (0, 1)


def test_what_is_within_the_budget_is_left_as_it_is():
    generator = torch.Generator().manual_seed(2)
    images = uniform(generator)
    examples = (images + 0.2 * (uniform(generator) - 0.5)).clamp(0, 1)
    assert torch.equal(hold_budget(examples, images, 0.3), examples)


def test_examples_that_no_rounding_carried_so_far_are_refused():
    images = torch.full((2, 1, 1, 1), 0.5)
    with pytest.raises(GradshardError, match=r"1 of 2 examples are further than 0\.3 from their images"):
        hold_budget(images + torch.tensor([0.29, 0.301]).reshape(2, 1, 1, 1), images, 0.3)
