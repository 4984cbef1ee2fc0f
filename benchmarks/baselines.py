"""Trainings of other papers and the default one's, on digits, at equal passes: errors over seeds, and who collapsed.

What it does not show: large models, colour images, or another epsilon; what stores add.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import click
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.digits import dataset_of_digits
from gradshard.pipeline import models
from gradshard.pipeline.evaluation.robust_error import ErrorRates, ProbedImages, error_rates, random_starts
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.held_back import HeldBackErrors, catastrophic_overfitting
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.passes import PassCounts
from gradshard.pipeline.training.trainer import Trainer
from gradshard.pipeline.types import MethodName
from gradshard.storage.formats.dataset import Split
from gradshard.storage.ingest.sources import mnist5k
from gradshard.storage.streaming.reader import open_reader, plan_reading

EPSILON, BATCH, RATE = 0.2, 64, 0.002
# Steps by which a model is tried on held-back digits, after every second epoch.
_FEW = 10


@dataclass(frozen=True)
class Training:
    """A method, its settings, and as many epochs as make about as many passes as the others."""

    method: MethodName | None
    epochs: int
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name it, with its settings."""
        given = "".join(f", {name} {value:g}" for name, value in self.settings.items())
        return f"{self.method or 'clean images alone'}{given}"


# 60 passes a training image, a forward and a backward one each counting 1.
TRAININGS = (
    Training(None, 30),
    Training("ensemble", 14),
    Training("fast_at", 15),
    Training("n_fgsm", 15),
    Training("free_at", 28, {"replays": 4}),
    Training("pgd_at", 6, {"steps": 4}),
    Training("trades", 5, {"steps": 4}),
)


@dataclass(frozen=True)
class Digits:
    """Digits to train on, and others to be tried on."""

    train: Split
    held_back: ProbedImages
    test: ProbedImages

    @classmethod
    def read(cls, folder: Path, *, rows: int, held_back: int, test: int) -> "Digits":
        """Take the first ``rows`` of the 4,000 training digits, the last ``held_back``, and ``test`` test digits."""
        splits = mnist5k().splits
        (images, labels), (others, their_labels) = (
            (part[0][:], part[1].astype(np.int64)) for part in (splits["train"], splits["test"])
        )
        return cls(
            dataset_of_digits(folder / "digits.zarr", rows=rows),
            _probed(images[-held_back:], labels[-held_back:]),
            _probed(others[:test], their_labels[:test]),
        )


def train(training: Training, digits: Digits, seed: int) -> tuple[ErrorRates, PassCounts, bool]:
    """Train once; gives the errors on test digits, the passes, and whether it overfitted catastrophically."""
    reading = plan_reading(digits.train, {}, memory=1 << 30)
    run = TrainingRun(
        rows=len(digits.train),
        batch=BATCH,
        epochs=training.epochs,
        seed=seed,
        optimization=Optimization("adam", RATE, schedule="cosine"),
        reading=reading,
        adversary=_adversary(training),
        sample_shape=(1, 28, 28),
        replays=int(training.settings.get("replays", 1)),
    )
    model = models.create_model("small_cnn", (1, 28, 28), 10, seed=seed)
    trainer = Trainer(model, run, device=torch.device("cpu"), arithmetic="fp32")
    found = []
    for step in trainer.steps(open_reader(digits.train, {}, reading)):
        epoch, within = divmod(step.number, run.steps_per_epoch)
        if within == 0 and (epoch % 2 == 0 or epoch == run.epochs):
            errors = error_rates(model, digits.held_back, epsilon=EPSILON, steps=_FEW)
            found.append(HeldBackErrors(epoch, errors.clean, None, errors.pgd))
    collapsed = catastrophic_overfitting(found) is not None
    return error_rates(model, digits.test, epsilon=EPSILON, steps=40), trainer.passes, collapsed


def table(digits: Digits, seeds: int) -> Iterator[str]:
    """Yield the lines of a table in Markdown, each as soon as its method is through."""
    yield "| trained by | epochs | passes an image | clean error | own-PGD error | collapsed |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for training in TRAININGS:
        runs = [train(training, digits, seed) for seed in range(seeds)]
        passes = mean(sum(passes) for _, passes, _ in runs) / len(digits.train)
        cells = [
            training.title,
            f"{training.epochs}",
            f"{passes:.1f}",
            _spread([100 * errors.clean for errors, _, _ in runs]),
            _spread([100 * errors.pgd for errors, _, _ in runs]),
            f"{sum(collapsed for _, _, collapsed in runs)} of {seeds}",
        ]
        yield "| " + " | ".join(cells) + " |"


def _probed(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> ProbedImages:
    tensor = torch.from_numpy(images.copy())
    return ProbedImages(tensor, torch.from_numpy(labels.copy()), None, (), random_starts(tensor.shape, seed=0))


def _adversary(training: Training) -> Adversary | None:
    if training.method is None:
        return None
    return Adversary(
        attack="fgsm",
        epsilon=EPSILON,
        alpha=0.0,
        clean_weight=0.5,
        sources=("self",),
        schedule="random",
        gradient="exact",
        policy="predicted",
        live_mode="train",
        directions={},
        method=training.method,
        settings=training.settings,
    )


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


@click.command()
@click.option("--rows", default=2000, show_default=True, help="The number of digits to train on.")
@click.option("--test", default=500, show_default=True, help="The number of test digits.")
@click.option("--seeds", default=3, show_default=True, help="The number of seeds of each training.")
def main(rows: int, test: int, seeds: int) -> None:
    """Print the errors of each way of training as a Markdown table, for docs/baselines.md."""
    with TemporaryDirectory() as folder:
        for line in table(Digits.read(Path(folder), rows=rows, held_back=200, test=test), seeds):
            click.echo(line)


if __name__ == "__main__":
    main()
