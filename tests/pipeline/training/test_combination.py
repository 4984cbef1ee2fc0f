"""Losses under several sources, combined as PubDef does, against sums written out, alone and in training."""

import pytest
import torch
from torch.nn import functional

from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.training.combination import combined, moving_average
from gradshard.pipeline.training.methods import ensemble
from gradshard.storage.formats import bitplanes
from tests.helpers.trainers import adversary, equal, parameters, without_dropout

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


def test_a_combined_loss_is_that_of_each_sources_images(start):
    """Written out: the mean of the losses under the model's own FGSM and under the signs of each store, by weight."""
    robust = adversary(schedule="all", weights={"self": 2.0, "C": 3.0}, clean_weight=0.3)
    trainer, reader = start(robust=robust, epochs=1, batch=700)
    without_dropout(trainer)
    raw = next(iter(reader.read(trainer.run.requests(0))))
    x, y = to_unit_range(torch.from_numpy(raw.images)), torch.from_numpy(raw.labels)
    stored_signs = [torch.from_numpy(bitplanes.unpack(planes, 784)).float().view_as(x) for planes in raw.planes]
    own = fgsm(trainer.model, x, trainer.model(x).argmax(1), epsilon=0.3)
    versions = [own, *((x + 0.3 * signs).clamp(0, 1) for signs in stored_signs)]
    clean = functional.cross_entropy(trainer.model(x), y).item()
    each = [functional.cross_entropy(trainer.model(version), y).item() for version in versions]
    (step,) = trainer.steps(reader)
    assert step.live
    assert step.record.clean_loss == pytest.approx(clean, rel=1e-5)
    assert step.record.adversarial_loss == pytest.approx((2 * each[0] + each[1] + 3 * each[2]) / 6, rel=1e-5)


def test_recent_losses_weigh_the_sources_from_the_next_step_on(start):
    robust = adversary(sources=("A", "C"), schedule="loss_weighted", ema_decay=0.75)
    trainer, reader = start(robust=robust, epochs=1, batch=350)
    without_dropout(trainer)
    averages, found = [trainer.state()["method.recent_losses"]], []
    combine = ensemble.combined

    def kept(kind, losses, weights, *, k):
        found.append((losses.mean(1).detach(), weights.clone()))
        return combine(kind, losses, weights, k=k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "combined", kept)
        averages += [trainer.state()["method.recent_losses"] for _ in trainer.steps(reader)]
    assert averages[0].tolist() == [1, 1]
    for before, after, (losses, weights) in zip(averages[:-1], averages[1:], found, strict=True):
        assert torch.equal(weights, before)
        assert torch.allclose(after, 0.75 * before + 0.25 * losses)


@pytest.mark.parametrize("schedule", ["all", "loss_weighted"])
def test_one_source_has_nothing_to_be_combined_with(start, schedule):
    results = []
    for kind in ("random", schedule):
        trainer, reader = start(robust=adversary(sources=("self",), schedule=kind), epochs=1)
        list(trainer.steps(reader))
        results.append(parameters(trainer))
    assert equal(*results)
