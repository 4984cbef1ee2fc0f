"""Training methods on real digits: each leaves far less own-PGD error than training on clean images does."""

import numpy as np
import pytest
import torch
from torch import nn

from gradshard.pipeline.evaluation.robust_error import ProbedImages, error_rates, random_starts
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.streaming.reader import RawBatch, ReadingPlan
from tests.helpers.adversaries import adversary_of

ROWS, EPSILON = 1000, 0.1

pytestmark = pytest.mark.slow


class Reader:
    """The first training digits, from memory."""

    def __init__(self, digits):
        self.images, self.labels = (part[:ROWS] for part in digits["train"])

    def read(self, requests):
        for request in requests:
            labels = self.labels[request.rows].astype(np.int64)
            yield RawBatch(request.rows, self.images[request.rows], labels, None)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 144, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def errors(digits, method, **settings):
    """Clean and own-PGD error of a small net on other digits, after eight epochs."""
    adversary = adversary_of(method or "ensemble", epsilon=EPSILON, **settings)
    run = TrainingRun(
        rows=ROWS,
        batch=50,
        epochs=8,
        seed=0,
        optimization=Optimization("adam", 0.002),
        reading=ReadingPlan(True, ROWS, 1),
        adversary=adversary if method else None,
        sample_shape=(1, 28, 28),
        replays=settings.get("replays", 1),
    )
    trainer = Trainer(small_net(), run, device=torch.device("cpu"), arithmetic="fp32")
    for _ in trainer.steps(Reader(digits)):
        pass
    images, labels = (torch.from_numpy(part[:300]) for part in digits["test"])
    probed = ProbedImages(images, labels.long(), None, (), random_starts(images.shape, seed=0))
    return error_rates(trainer.model, probed, epsilon=EPSILON, steps=20)


@pytest.fixture(scope="module")
def plain(digits):
    return errors(digits, None)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("fast_at", {}),
        ("n_fgsm", {}),
        ("free_at", {"replays": 4}),
        ("pgd_at", {"steps": 5}),
        ("trades", {"steps": 5}),
    ],
)
def test_own_pgd_errs_at_most_two_thirds_as_often_as_after_training_on_clean_images(digits, plain, method, settings):
    found = errors(digits, method, **settings)
    assert found.clean < plain.clean + 0.05
    assert found.pgd < plain.pgd * 2 / 3
