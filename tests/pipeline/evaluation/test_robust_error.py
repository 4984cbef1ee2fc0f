"""The error of a model on probed images, against the attacks run one by one."""

from dataclasses import replace

import pytest
import torch

from gradshard.pipeline.attacks.pgd import pgd
from gradshard.pipeline.evaluation.robust_error import ProbedImages, error_rates, random_starts
from gradshard.pipeline.gradients.random_step import RandomStep
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.storage.formats import bitplanes

EPSILON = 0.05


@pytest.fixture
def probed():
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (300, 1, 3, 4), generator=generator, dtype=torch.uint8)
    signs = torch.randint(-1, 2, (2, 300, 12), generator=generator, dtype=torch.int8)
    planes = torch.stack([torch.from_numpy(bitplanes.pack(one.numpy())) for one in signs])
    labels = torch.randint(0, 3, (300,), generator=generator)
    return ProbedImages(images, labels, planes, (1, -1), random_starts(images.shape, seed=4)), signs


def test_rates_are_those_of_the_attacks_written_out(linear_model, probed):
    model, (given, signs) = linear_model(classes=3).train(), probed
    images = to_unit_range(given.images)

    def wrong(tried):
        return model(tried).argmax(1) != given.labels

    stored = [
        wrong((images + EPSILON * way * one.float().view_as(images)).clamp(0, 1))
        for way, one in zip((1, -1), signs, strict=True)
    ]
    own = pgd(
        model, images, given.labels, epsilon=EPSILON, step=2.5 * EPSILON / 4, steps=4, noise=given.starts.unsqueeze(0)
    )
    found = error_rates(model, given, epsilon=EPSILON, steps=4)
    rates = [part.float().mean().item() for part in (wrong(images), stored[0] | stored[1], wrong(own))]
    assert found == pytest.approx(rates)
    assert found.clean < found.transfer < found.pgd
    assert model.training


def test_without_stores_there_is_no_transfer_error(linear_model, probed):
    given, _ = probed
    alone = ProbedImages(given.images, given.labels, None, (), given.starts)
    assert error_rates(linear_model(classes=3), alone, epsilon=EPSILON, steps=2).transfer is None


def test_stored_signs_are_stepped_along_after_their_random_step(linear_model, probed):
    model, (given, signs) = linear_model(classes=3), probed
    images, rows, step = to_unit_range(given.images), list(range(40, 340)), RandomStep(0.02, seed=1, copy=2)
    after = replace(given, random_steps=(None, step), rows=rows)
    moved = (images + 0.02 * step.noise(images.shape, rows, images.device)).clamp(0, 1)
    ways = [one.float().view_as(images) for one in signs]
    stored = ((images + EPSILON * ways[0]).clamp(0, 1), (moved - (EPSILON - 0.02) * ways[1]).clamp(0, 1))
    wrong = [model(tried).argmax(1) != given.labels for tried in stored]
    found = error_rates(model, after, epsilon=EPSILON, steps=1).transfer
    assert found == pytest.approx((wrong[0] | wrong[1]).float().mean().item())
    assert found != error_rates(model, given, epsilon=EPSILON, steps=1).transfer
