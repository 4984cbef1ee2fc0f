"""Robust error of what FGSM-EP and FGSM-PGI train with signs and with float buffers, beside PGD-AT: a Markdown table.

Each is trained with some seeds on the 4,000 training digits of ``mnist5k``, model small_cnn, and tried after every few
epochs on the 1,000 test digits: clean, and by its own PGD. ``python -m benchmarks.prior_errors`` takes some minutes.
"""

import itertools
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from benchmarks.digits import dataset_of_digits
from benchmarks.float_buffer import FloatBuffer
from benchmarks.priors import make_trainer
from gradshard.pipeline.evaluation.robust_error import ErrorRates, ProbedImages, error_rates, random_starts
from gradshard.pipeline.types import MethodName
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.streaming.reader import open_reader

EPSILON, EVERY, PGD_STEPS = 0.3, 5, 20
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Row:
    """A row of the table: a method, what its prior is kept in, and what its distance of logits weighs."""

    title: str
    method: MethodName
    floats: bool = False
    prior_weight: float | None = None


_ROWS = (
    _Row("FGSM-EP, signs", "fgsm_ep"),
    _Row("FGSM-EP, floats", "fgsm_ep", floats=True),
    _Row("FGSM-PGI, weight 1, signs", "fgsm_pgi", prior_weight=1),
    _Row("FGSM-PGI, weight 1, floats", "fgsm_pgi", floats=True, prior_weight=1),
    _Row("FGSM-PGI, weight 10, signs", "fgsm_pgi", prior_weight=10),
    _Row("FGSM-PGI, weight 10, floats", "fgsm_pgi", floats=True, prior_weight=10),
    _Row("PGD-AT, 10 steps", "pgd_at"),
)


@click.command()
@click.option("--seeds", default=3, show_default=True, help="The number of seeds.")
@click.option("--epochs", default=15, show_default=True, help="The number of epochs of each training.")
@click.option("--only", default="", help="The beginning of the names of the rows to measure; default: all rows.")
def main(seeds: int, epochs: int, only: str) -> None:
    """Train every method with every seed, and print a table of the errors in percent."""
    with tempfile.TemporaryDirectory() as folder:
        split = dataset_of_digits(Path(folder) / "digits.zarr", rows=4000)
        probed = _probed(open_dataset(Path(folder) / "digits.zarr").test)
        tried = range(EVERY, epochs + 1, EVERY)
        click.echo("| error | clean | " + " | ".join(f"PGD, {epoch} epochs" for epoch in tried) + " |")
        click.echo("| --- " * (len(tried) + 2) + "|")
        for row in _ROWS:
            if row.title.startswith(only):
                found = [_curve(row, split, probed, seed, epochs) for seed in range(seeds)]
                clean = _spread([curve[-1].clean for curve in found])
                cells = [_spread([curve[number].pgd for curve in found]) for number in range(len(tried))]
                click.echo(f"| {row.title} | {clean} | " + " | ".join(cells) + " |")


def _curve(row: _Row, split: Split, probed: ProbedImages, seed: int, epochs: int) -> Sequence[ErrorRates]:
    """Train once; the errors after every few epochs."""
    trainer = make_trainer(
        split,
        row.method,
        "small_cnn",
        epsilon=EPSILON,
        epochs=epochs,
        seed=seed,
        prior_weight=row.prior_weight,
    )
    if row.floats:
        trainer.method.prior = FloatBuffer(len(split), split.sample_shape, device=_CPU)
    steps = trainer.steps(open_reader(split, {}, trainer.run.reading))
    found = []
    for _ in range(EVERY, epochs + 1, EVERY):
        for _ in itertools.islice(steps, EVERY * trainer.run.steps_per_epoch):
            pass
        found.append(error_rates(trainer.model, probed, epsilon=EPSILON, steps=PGD_STEPS))
    return found


def _probed(split: Split) -> ProbedImages:
    images, labels = (torch.from_numpy(part) for part in split.load())
    return ProbedImages(images, labels, None, (), random_starts(images.shape, seed=0))


def _spread(rates: Sequence[float]) -> str:
    spread = statistics.stdev(rates) if len(rates) > 1 else 0.0
    return f"{100 * statistics.mean(rates):.1f} ± {100 * spread:.1f}"


if __name__ == "__main__":
    main()
