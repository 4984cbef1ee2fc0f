"""A trainer of a small model on a few digits, and the stores that it reads."""

import pytest

from gradshard.pipeline import models
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.streaming.reader import open_reader, plan_reading
from tests.helpers.stores import build_store, rand_fgsm_record
from tests.helpers.trainers import CPU


@pytest.fixture
def stores(tmp_path, small_dataset):
    """A and C of gradients, and R of RAND+FGSM in three copies."""
    kinds = {"A": None, "C": None, "R": rand_fgsm_record()}
    return {
        name: build_store(
            tmp_path / f"b{name}", small_dataset, tmp_path / f"{name}.zarr", seed=seed, model=name, attack=attack
        )
        for seed, (name, attack) in enumerate(kinds.items())
    }


@pytest.fixture
def start(small_dataset, stores):
    """Make a trainer of the small model D and its reader."""

    def make(
        *,
        robust=None,
        arithmetic="fp32",
        epochs=2,
        seed=3,
        learning_rate=0.001,
        memory=1 << 30,
        batch=64,
        augment=None,
        average=None,
        replays=1,
    ):
        used = stores if robust and robust.stores else {}
        reading = plan_reading(small_dataset.train, used, memory=memory)
        run = TrainingRun(
            rows=700,
            batch=batch,
            epochs=epochs,
            seed=seed,
            optimization=Optimization("adam", learning_rate),
            reading=reading,
            adversary=robust,
            augmentation=augment or Augmentation(),
            average=average,
            sample_shape=small_dataset.sample_shape,
            replays=replays,
        )
        model = models.create_model("D", small_dataset.sample_shape, 10, seed=seed)
        trainer = Trainer(model, run, device=CPU, arithmetic=arithmetic)
        return trainer, open_reader(small_dataset.train, used, reading)

    return make
