"""Losses under several sources, combined as PubDef does, against sums written out."""

import pytest
import torch

from gradshard.pipeline.training.combination import combined, moving_average

LOSSES = torch.tensor([[1.0, 5.0], [2.0, 0.0], [4.0, 3.0]])


def test_all_takes_the_mean_over_the_sources_by_weight():
    assert combined("all", LOSSES, torch.ones(3), k=1).tolist() == pytest.approx([7 / 3, 8 / 3])
    assert combined("all", LOSSES, torch.tensor([2.0, 1.0, 1.0]), k=1).tolist() == [2.0, 3.25]


@pytest.mark.parametrize(("k", "expected"), [(1, [4.0, 5.0]), (2, [3.0, 4.0]), (3, [7 / 3, 8 / 3])])
def test_top_k_takes_the_mean_of_each_examples_largest(k, expected):
    assert combined("top_k", LOSSES, torch.ones(3), k=k).tolist() == pytest.approx(expected)


def test_the_largest_losses_keep_the_weights_of_their_sources():
    expected = [(2 * 1 + 4 * 3) / 4, (5 * 2 + 3 * 3) / 5]
    assert combined("top_k", LOSSES, torch.tensor([2.0, 1.0, 3.0]), k=2).tolist() == pytest.approx(expected)


def test_of_the_top_k_alone_there_is_a_gradient():
    losses = LOSSES.clone().requires_grad_()
    combined("top_k", losses, torch.ones(3), k=1).sum().backward()
    assert losses.grad.tolist() == [[0, 1], [0, 0], [1, 0]]


def test_a_moving_average_forgets_by_its_decay():
    average = torch.ones(2)
    for losses in ([2.0, 1.0], [4.0, 1.0]):
        average = moving_average(average, torch.tensor(losses), decay=0.75)
    assert average.tolist() == pytest.approx([0.75 * (0.75 + 0.25 * 2) + 0.25 * 4, 1.0])
