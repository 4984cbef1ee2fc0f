"""Robust error of what FGSM-EP and FGSM-PGI train with signs and with float buffers, beside PGD-AT: a Markdown table.

Each is trained with some seeds on the 4,000 training digits of ``mnist5k``, model small_cnn, and tried after every few
epochs on the 1,000 test digits: clean, and by its own PGD. ``python -m benchmarks.prior_errors`` takes some minutes.
"""

import itertools
import statistics
import tempfile
from collections.abc import Sequence
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
# The method, and whether it keeps floats.
_ROWS: dict[str, tuple[MethodName, bool]] = {
    "FGSM-EP, signs": ("fgsm_ep", False),
    "FGSM-EP, floats": ("fgsm_ep", True),
    "FGSM-PGI, signs": ("fgsm_pgi", False),
    "FGSM-PGI, floats": ("fgsm_pgi", True),
    "PGD-AT, 10 steps": ("pgd_at", False),
}


@click.command()
@click.option("--seeds", default=3, show_default=True, help="How many.")
@click.option("--epochs", default=15, show_default=True, help="Of each training.")
def main(seeds: int, epochs: int) -> None:
    """Train every method with every seed, and print the table of errors in percent."""
    with tempfile.TemporaryDirectory() as folder:
        split = dataset_of_digits(Path(folder) / "digits.zarr", rows=4000)
        probed = _probed(open_dataset(Path(folder) / "digits.zarr").test)
        tried = range(EVERY, epochs + 1, EVERY)
        click.echo(f"| {EPSILON:g}, {seeds} seeds | clean | " + " | ".join(f"PGD, {e} epochs" for e in tried) + " |")
        click.echo("| --- " * (len(tried) + 2) + "|")
        for name, (method, floats) in _ROWS.items():
            found = [_curve(split, probed, method, floats, seed, epochs) for seed in range(seeds)]
            clean = _spread([curve[-1].clean for curve in found])
            cells = [_spread([curve[n].pgd for curve in found]) for n in range(len(tried))]
            click.echo(f"| {name} | {clean} | " + " | ".join(cells) + " |")


def _curve(
    split: Split, probed: ProbedImages, method: MethodName, floats: bool, seed: int, epochs: int
) -> Sequence[ErrorRates]:
    """Train once; the errors after every few epochs."""
    trainer = make_trainer(split, method, "small_cnn", epsilon=EPSILON, epochs=epochs, seed=seed)
    if floats:
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
