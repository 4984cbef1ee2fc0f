"""Rows of the training set that no robust model trains on, and on which each is measured during its training."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from gradshard.pipeline.config.training import HeldBackParams
from gradshard.pipeline.evaluation.robust_error import ProbedImages, error_rates, random_starts
from gradshard.pipeline.gradients.random_step import random_step
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.training.held_back import HeldBackErrors, draw_rows
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.streaming.reader import Reader
from gradshard.storage.streaming.shuffle import Rows
from gradshard.storage.streaming.windows import Request


def rows_of(held_back: HeldBackParams | None, rows: int) -> Rows | None:
    """Return the held-back rows, sorted; none if all rows are trained on.

    Raises:
        GradshardError: no row would be left to train on.
    """
    if held_back is None:
        return None
    if held_back.rows >= rows:
        raise GradshardError(
            f"adversarial.held_back.rows is {held_back.rows} of {rows} training images, which leaves none to train on: "
            "hold back fewer"
        )
    return draw_rows(rows, held_back.rows, seed=held_back.seed)


@dataclass(frozen=True)
class Judge:
    """Measurement of a model on the held-back rows, after every so many epochs and the last."""

    probed: ProbedImages
    every: int
    steps: int
    epsilon: float

    def __call__(self, model: nn.Module, epoch: int, *, last: bool) -> HeldBackErrors | None:
        """Return the model's error rates after an epoch; none if they are not measured after that one."""
        if epoch % self.every and not last:
            return None
        with precision_context("fp32", next(model.parameters()).device):
            found = error_rates(model, self.probed, epsilon=self.epsilon, steps=self.steps)
        return HeldBackErrors(epoch, found.clean, found.transfer, found.pgd)


def make_judge(
    held_back: HeldBackParams, held: Rows, reader: Reader, stores: Mapping[str, SignStore], epsilon: float
) -> Judge:
    """Read the held-back rows and their signs in each store's first copy, and keep them in memory."""
    (raw,) = reader.read([Request(held, tuple(stores) or None)])
    images = torch.from_numpy(raw.images.copy())
    probed = ProbedImages(
        images=images,
        labels=torch.from_numpy(raw.labels.copy()),
        planes=None if raw.planes is None else torch.from_numpy(raw.planes),
        directions=tuple(store.manifest.direction.step for store in stores.values()),
        starts=random_starts(images.shape, seed=held_back.seed),
        random_steps=tuple(random_step(store) for store in stores.values()),
        rows=held.tolist(),
    )
    return Judge(probed, held_back.every, held_back.steps, epsilon)
