"""Stored signs in a step: their direction, their crops and their random steps."""

import numpy as np
import pytest
import torch

from gradshard.pipeline import models
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.random_step import step_along
from gradshard.pipeline.gradients.signs import GradientSpec, compute_signs, to_unit_range
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.data import make_batch
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.storage.formats import bitplanes
from gradshard.storage.streaming.reader import plan_reading
from tests.helpers.trainers import RANDOM_STEPS, adversary, stored, with_random_steps


def test_a_stored_batch_is_the_batch_crafted_live_from_that_static_model(tmp_path, small_dataset):
    """With the real signs of a static model, the store and the model itself give one and the same perturbation."""
    static = models.create_model("B", small_dataset.sample_shape, 10, seed=1).eval()
    images, labels = small_dataset.train.load()
    signs, _ = compute_signs(
        static, torch.from_numpy(images), torch.from_numpy(labels), GradientSpec("exact", "predicted")
    )
    rows = np.random.default_rng(0).permutation(700)[:64]
    grad, _ = input_gradient(static, to_unit_range(torch.from_numpy(images[rows])), None, policy="predicted")
    reading = plan_reading(small_dataset.train, {}, memory=1 << 30)
    run = TrainingRun(700, 64, 1, 0, Optimization("adam", 0.001), reading, adversary())
    step = next(step for step in range(10) if run.source(step) == "A")
    raw = stored(images[rows], labels[rows], bitplanes.pack(signs.numpy())[rows])
    assert torch.equal(make_batch(raw, run, step).signs, grad.sign())


@pytest.mark.parametrize("direction", [1, -1])
def test_a_store_for_the_least_likely_class_is_stepped_along_the_other_way(start, small_dataset, stores, direction):
    trainer, _ = start(robust=adversary(directions={"A": direction, "C": direction}))
    step = next(step for step in range(11) if trainer.run.source(step) == "A")
    planes = stores["A"].read(0, 5)
    expected = direction * torch.from_numpy(bitplanes.unpack(planes, 784)).float().view(5, 1, 28, 28)
    raw = stored(small_dataset.train.read_images(0, 5), np.zeros(5, np.int64), planes)
    assert torch.equal(make_batch(raw, trainer.run, step).signs, expected)


@pytest.mark.parametrize("schedule", ["rotate", "all"])
def test_without_self_crops_move_images_and_their_signs_together(start, small_dataset, stores, schedule):
    robust = adversary(sources=("A", "C"), schedule=schedule, epsilon=0.1)
    trainer, _ = start(robust=robust, augment=Augmentation(padding=3, flip=True))
    rows = np.arange(64)
    images = torch.from_numpy(small_dataset.train.read_images(0, 64))
    signs = [torch.from_numpy(bitplanes.unpack(stores[name].read(0, 64), 784)).view(64, 1, 28, 28) for name in "AC"]
    planes = [stores[name].read(0, 64) for name in "AC"]
    chosen = np.stack(planes) if schedule == "all" else planes[0]
    batch = make_batch(stored(images.numpy(), rows, chosen), trainer.run, 0)
    views = trainer.run.augmentation.draw(64, seed=3, step=0)
    assert torch.equal(batch.images, to_unit_range(views.apply(images)))
    expected = [views.apply(one.float()) for one in (signs if schedule == "all" else signs[:1])]
    assert torch.equal(batch.signs, torch.stack(expected) if schedule == "all" else expected[0])
    assert not torch.equal(batch.images, to_unit_range(images))


@pytest.mark.parametrize("change", [{"schedule": "rotate"}, {"schedule": "all"}, {"objective": "half"}])
def test_every_objective_makes_the_random_step_of_the_copy_whose_turn_it_is(start, small_dataset, stores, change):
    """From within the model: what passes perturbed by R, beside C, in the second epoch."""
    robust = with_random_steps(sources=("R", "C"), **({"schedule": "rotate"} | change))
    trainer, reader = start(robust=robust, epochs=2)
    passed = []
    trainer.model.flatten.register_forward_hook(lambda module, args, _: passed.append(args[0].detach().clone()))
    list(trainer.steps(reader))
    step = next(step for step in range(11, 22) if "R" in (trainer.run.stores(step)))
    rows = list(trainer.run.requests(0))[step].rows
    x = to_unit_range(torch.from_numpy(small_dataset.train.take_images(rows)))
    copy = (3 + 1) % 3
    signs = torch.from_numpy(bitplanes.unpack(stores["R"].of_copy(copy).load()[rows], 784)).view_as(x)
    expected = step_along(x, signs, 0.3, step=RANDOM_STEPS[copy], rows=rows)
    if robust.objective == "half":
        assert torch.equal(passed[step][::2], expected[::2])
        assert torch.equal(passed[step][1::2], x[1::2])
    else:
        assert torch.equal(passed[step][:64], x)
        assert torch.equal(passed[step][64:128], expected)
    if robust.combination:
        others = torch.from_numpy(bitplanes.unpack(stores["C"].load()[rows], 784)).view_as(x)
        assert torch.equal(passed[step][128:], (x + 0.3 * others).clamp(0, 1))
