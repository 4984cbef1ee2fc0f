"""The trainer's batches for a loop of your own: the same rows, sources, crops and epsilons, for the same seed."""

import dataclasses
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import torch

from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.gradients.random_step import random_steps
from gradshard.pipeline.loading.places import CACHE, Place, open_place
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.data import Batch, make_batch, read
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import step_seed
from gradshard.pipeline.types import SELF, EpsilonDistribution, ScheduleKind
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Dataset, Split, open_dataset
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.streaming.reader import open_reader, plan_reading

_MEMORY = 1 << 30
# A loader has no end: the caller's loop counts the epochs.
_EPOCHS = 1 << 40


class SignLoader:
    """Batches of a prepared dataset and of the signs of its stores; each iteration over the loader is one epoch.

    Each batch has the signs of one source, or none if the trained model itself is the source. Data and stores that fit
    ``memory`` are read once and shuffled exactly; larger ones pass through windows of chunks: the chunks are shuffled,
    and then the rows within each window.

    A loop that is left in the middle of an epoch resumes there when it is started again, as after ``load_state_dict``.
    So does a loop that was ended by Ctrl-C, or by an error such as a missing shard, once the cause is removed.
    """

    def __init__(
        self,
        dataset: str | Path | Dataset | Split,
        stores: Mapping[str, Place],
        *,
        batch: int,
        epsilon: float,
        seed: int = 0,
        live: bool = True,
        schedule: ScheduleKind = "random",
        epsilon_law: EpsilonDistribution = "fixed",
        padding: int = 0,
        flip: bool = False,
        memory: int = _MEMORY,
        rank: int = 0,
        ranks: int = 1,
        device: str | torch.device = "cpu",
        cache: str | Path = CACHE,
    ) -> None:
        """Open dataset and stores.

        Args:
            dataset: a prepared dataset, open or its path, whose training split is read; or a split.
            stores: stores by name, each as a path, a URL, or open.
            batch: rows of a step over all ranks; the last step of an epoch may have fewer.
            epsilon: the epsilon of every batch, or the bound of ``epsilon_law``.
            seed: the seed of the order, the schedule, crops and epsilons.
            live: whether the model that is trained is one of the sources, under the name ``self``.
            schedule: ``random`` or ``rotate``.
            epsilon_law: ``fixed`` or ``truncated_normal``.
            padding: crops at random, from images padded by this many pixels of 0.
            flip: mirrors at random.
            memory: bytes that may be kept of the dataset and the stores.
            rank: which part of each batch this process takes.
            ranks: the number of ranks.
            device: the device of the batches.
            cache: the folder that keeps shards of remote stores.

        Raises:
            GradshardError: the dataset or a store is missing, a store is for other rows, a batch is too small for the
                ranks, or another argument is out of its range.
        """
        _check_numbers(batch=batch, epsilon=epsilon, seed=seed, padding=padding, rank=rank, ranks=ranks)
        if not isinstance(stores, Mapping):
            raise GradshardError(
                f"stores is a {type(stores).__name__}: give a mapping of names to stores, as {{'A': 'signs/A.zarr'}}"
            )
        split = dataset if isinstance(dataset, Split) else _training_split(dataset)
        opened = {source: open_place(place, Path(cache)) for source, place in stores.items()}
        for store in opened.values():
            store.check_made_for(split)
        if SELF in opened:
            raise GradshardError(f"a store is named {SELF}, as the trained model is: give it another name")
        if not (opened or live):
            raise GradshardError("there is no source: name a store, or leave live=False out")
        if schedule not in get_args(ScheduleKind):
            raise GradshardError(
                f"schedule {schedule} is none of a loader's, which takes one source a batch: give random or rotate"
            )
        if epsilon_law not in get_args(EpsilonDistribution):
            raise GradshardError(f"epsilon_law is {epsilon_law}: give {' or '.join(get_args(EpsilonDistribution))}")
        self.step = 0
        self._device = torch.device(device)
        Rank(rank, ranks).check(len(split), batch)
        self._run = TrainingRun(
            rows=len(split),
            batch=batch,
            epochs=_EPOCHS,
            seed=seed,
            # Never used: the caller's loop has its own optimiser.
            optimization=Optimization("adam", 0.0),
            reading=plan_reading(split, opened, memory=memory),
            adversary=_adversary(opened, live, schedule, epsilon, epsilon_law),
            augmentation=Augmentation(padding, flip),
            ranks=Rank(rank, ranks),
        )
        self._identity = _identity(split, opened, self._run)
        self._reader = open_reader(split, opened, self._run.reading)
        self._running: Generator[Batch, None, None] | None = None

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return self._run.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next batch belongs to, counted from 0."""
        return self.step // len(self)

    def source(self, step: int) -> str:
        """Return the source of a step, counted from 0 over all epochs: the name of a store, or ``self``.

        In the body of a loop, ``loader.step`` is the step of the next batch, so that of the current batch is
        ``loader.step - 1``. If its source is ``self``, ``batch.signs`` is None.
        """
        return self._run.source(step)

    def torch_seed(self, step: int) -> int:
        """Return the trainer's argument of ``torch.manual_seed`` before a step, so that dropout is the same too."""
        return step_seed(self._run.seed, step)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches from the current step to the end of its epoch.

        Raises:
            GradshardError: a shard is missing or damaged.
        """
        end = (self.epoch + 1) * len(self)
        while self.step < end:
            batch = self._next()
            self.step += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's step, and all that its order depends on, in plain types."""
        return {"step": self.step, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where a loader of the same order was; it may have had other ranks.

        Raises:
            GradshardError: that loader had another order.
        """
        for key, value in self._identity.items():
            if state.get(key) != value:
                raise GradshardError(
                    f"the state is of a loader with another {key} ({state.get(key)}, here {value}), so the rest of its "
                    "epoch would be other rows: make the loader as that one was made"
                )
        self.close()
        self.step = int(state["step"])

    def close(self) -> None:
        """Drop what was read ahead, and end the threads that read."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def __del__(self) -> None:
        with suppress(AttributeError):
            self.close()

    def _next(self) -> Batch:
        if self._running is None:
            self._running = self._batches(self.step)
        try:
            return next(self._running)
        except BaseException:
            # A generator that raised has ended; to go on takes another one, which begins at this step.
            self.close()
            raise

    def _batches(self, start: int) -> Generator[Batch, None, None]:
        batches = read(self._reader, self._run.requests(start), self._device)
        for step, raw in enumerate(batches, start=start):
            yield make_batch(raw, self._run, step)


def _check_numbers(*, batch: int, epsilon: float, seed: int, padding: int, rank: int, ranks: int) -> None:
    """Refuse numbers with which batches would be empty, or their perturbations meaningless."""
    if batch < 1:
        raise GradshardError(f"batch is {batch}: give how many rows a step takes, 1 or more")
    if not 0 < epsilon <= 1:
        raise GradshardError(f"epsilon is {epsilon:g}, no distance of pixels in [0, 1]: write 8 of 255 as 8 / 255")
    for name, number in (("seed", seed), ("padding", padding)):
        if number < 0:
            raise GradshardError(f"{name} is {number}: give 0 or more")
    if not 0 <= rank < ranks:
        raise GradshardError(f"rank is {rank} of {ranks} ranks: give one from 0 to {max(ranks - 1, 0)}")


def _training_split(dataset: str | Path | Dataset) -> Split:
    if not isinstance(dataset, str | os.PathLike | Dataset):
        raise GradshardError(
            f"dataset is a {type(dataset).__name__}, not a prepared dataset: give the path of one, or use "
            "SignedDataset, which takes any"
        )
    data = dataset if isinstance(dataset, Dataset) else open_dataset(Path(dataset))
    data.check_trainable()
    return data.train


def _adversary(
    stores: Mapping[str, SignStore], live: bool, schedule: ScheduleKind, epsilon: float, law: EpsilonDistribution
) -> Adversary:
    """Return an adversary with sources, schedule and epsilons; its other fields concern a loss, which loaders lack."""
    return Adversary(
        attack="fgsm",
        epsilon=epsilon,
        alpha=0.0,
        clean_weight=0.5,
        sources=(*((SELF,) if live else ()), *stores),
        schedule=schedule,
        gradient="exact",
        policy="predicted",
        live_mode="train",
        directions={source: store.manifest.direction.step for source, store in stores.items()},
        epsilon_law=law,
        random_steps=random_steps(stores),
    )


def _identity(split: Split, stores: Mapping[str, SignStore], run: TrainingRun) -> dict[str, Any]:
    """Return all that the batches depend on, except the step and the ranks."""
    assert run.adversary is not None
    return {
        "dataset": split.digest,
        "stores": {source: store.manifest.content for source, store in stores.items()},
        "copies": {source: store.copy for source, store in stores.items() if store.chosen is not None} or None,
        "batch": run.batch,
        "seed": run.seed,
        "sources": list(run.adversary.sources),
        "schedule": run.adversary.schedule,
        "epsilon": [run.adversary.epsilon, run.adversary.epsilon_law],
        "augmentation": dataclasses.astuple(run.augmentation).__repr__(),
        # The version of the order of streamed rows, which changed when they were first dealt by chunks.
        "reading": [
            run.reading.resident,
            run.reading.chunk,
            run.reading.window,
            *([] if run.reading.resident else [2]),
        ],
    }
