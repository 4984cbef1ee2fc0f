import pytest
import torch
from torch import nn

from gradshard.pipeline.analysis.loss_surface import curvature, fooling_directions, loss_along, loss_plane


class Second(nn.Module):
    """Looks at the second pixel alone."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        second = images[:, 0, 0, 1] - 0.5
        return torch.stack([-second, second], dim=1)


class First(nn.Module):
    """Has a gradient for the first pixel alone, along which its loss soon peaks; the second fools it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wrong = 4 * (images[:, 0, 0, 0] - 0.5) - 40 * (images[:, 0, 0, 0] - 0.5) ** 2
        return torch.stack([torch.zeros_like(wrong), wrong + 2 * (images[:, 0, 0, 1] - 0.5).relu() - 0.15], dim=1)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.full((1, 1, 1, 2), 0.5)


LABEL = torch.tensor([0])


def test_an_image_is_chosen_that_the_source_alone_fools_the_model_on(image):
    found = fooling_directions(First(), Second(), image, LABEL, epsilon=0.3)
    assert [bool(of) for of in (found.right, found.own, found.other)] == [True, False, True]
    assert bool(found.other_alone)
    assert not found.own_alone
    wrong = fooling_directions(First(), Second(), image, 1 - LABEL, epsilon=0.3)
    assert not any(bool(of) for of in (wrong.right, wrong.own, wrong.other))


def test_a_loss_that_peaks_near_the_image_is_counted_and_one_that_climbs_is_not(image):
    peaks = curvature(First(), Second(), image, LABEL, epsilon=0.3)
    assert (peaks.n, peaks.near_own, peaks.falls_again) == (1, 1, 1)
    climbs = curvature(Second(), Second(), image, LABEL, epsilon=0.3)
    assert (climbs.n, climbs.near_own, climbs.falls_again) == (1, 0, 0)


def test_every_point_of_the_plane_is_an_image(image):
    seen = []

    class Watching(First):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images.detach())
            return super().forward(images)

    steps = torch.linspace(0, 0.8, 5)
    plane = loss_plane(Watching(), Second(), image, LABEL, steps)
    assert plane.shape == (5, 5)
    assert all(points.min() >= 0 and points.max() <= 1 for points in seen)
    # What leaves [0, 1] stays at its edge: from 0.5 on nothing changes.
    assert torch.equal(plane[3], plane[4])
    assert torch.equal(plane[:, 3], plane[:, 4])


def test_the_edges_of_the_plane_are_the_losses_along_both_signs(image):
    steps = torch.tensor([0.0, 0.1, 0.3])
    plane = loss_plane(First(), Second(), image, LABEL, steps)
    signs = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])
    along = [loss_along(First(), image, LABEL, sign[None], epsilon=0.3, shares=(0.0, 1 / 3, 1.0))[0] for sign in signs]
    assert torch.allclose(plane[:, 0], along[0])
    assert torch.allclose(plane[0], along[1])
    assert plane[0, 2] > plane[2, 0]
