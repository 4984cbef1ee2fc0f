"""A perturbation is stored as the signed step that comes nearest to it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradshard.pipeline.gradients.perturb import nearest_signs, perturb


def images(seed):
    """Pixels of every kind: black, white, near either, and between."""
    drawn = torch.rand((6, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return (1.4 * drawn - 0.2).clamp_(0, 1)


@given(st.integers(0, 99), st.sampled_from([8 / 255, 0.3, 0.6]))
def test_a_signed_step_is_stored_as_itself_also_where_it_is_cut_off(seed, epsilon):
    clean = images(seed)
    signs = torch.randint(-1, 2, clean.shape, generator=torch.Generator().manual_seed(seed)).float()
    perturbed = perturb(clean, signs, epsilon)
    assert torch.equal(perturb(clean, nearest_signs(clean, perturbed, epsilon), epsilon), perturbed)


@pytest.mark.parametrize("epsilon", [0.3, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).view(-1, 1, 1, 1)])
def test_no_other_sign_comes_nearer(epsilon):
    clean = images(0)
    noise = 2 * torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) - 1
    perturbed = perturb(clean, noise, epsilon)
    found = (perturb(clean, nearest_signs(clean, perturbed, epsilon), epsilon) - perturbed).abs()
    for sign in (-1.0, 0.0, 1.0):
        assert (found <= (perturb(clean, torch.full_like(clean, sign), epsilon) - perturbed).abs() + 1e-6).all()
