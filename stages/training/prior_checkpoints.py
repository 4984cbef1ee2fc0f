"""Checkpoints of the signs that a method keeps for each training image, beside those of its run."""

from pathlib import Path

from gradshard.pipeline.training.priors import SignBuffer
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.formats.prior_store import PriorStore


class PriorCheckpoints:
    """The generations of a trainer's prior, one for each checkpoint; a trainer without a prior has none."""

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._trainer = trainer
        self._prior: SignBuffer | None = trainer.prior
        if self._prior is not None:
            self._store = PriorStore(folder / "priors", rows=len(self._prior.planes), pixels=self._prior.pixels)

    def restore(self) -> None:
        """Load the generation of the trainer's current step.

        Raises:
            GradshardError: a file of it is missing or damaged.
        """
        if self._prior is not None:
            self._prior.load(self._store.load(self._trainer.step))
            self.settle()

    def save(self) -> None:
        """Write the generation of the trainer's current step; to be called before the checkpoint is written."""
        if self._prior is not None:
            self._store.save(self._trainer.step, self._prior.held, self._prior.take_changes())

    def settle(self) -> None:
        """Remove other generations; to be called once the checkpoint of the trainer's step is in place."""
        if self._prior is not None:
            self._store.remove_others()
