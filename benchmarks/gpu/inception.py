"""Inception v3 at 299 x 299: images at once, the rate of precompute, a training step with and without stores.

Weights and images are random; the work does not depend on them.
"""

import statistics
import tempfile
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np

from benchmarks import precompute, training
from benchmarks.gpu.part import Findings, findings, part_options
from benchmarks.ratios import seconds
from gradshard.pipeline.gradients.microbatches import fit
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.jobs.sign_stores import WRITERS
from gradshard.stages.machines.dask_cluster import dask_client
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset

ARCHITECTURE = "timm:inception_v3"
BATCH = 32
BATCHES = (64, 128, 256)


@click.command()
@part_options
def main(result: Path, device: str, small: bool) -> None:
    """Measure them; without timm, say so and measure nothing."""
    if find_spec("timm") is None:
        raise click.ClickException("Inception v3 is timm's, which is not installed: nothing was measured")
    with findings(result, device, small=small) as found, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # 75 pixels are the least that it takes.
        _write_images(folder / "data.zarr", rows=8 if small else 512, size=75 if small else 299)
        _precompute(found, folder)
        _training(found, folder)


def _write_images(path: Path, *, rows: int, size: int) -> None:
    draws = np.random.default_rng(0)
    splits = {
        split: (draws.integers(0, 256, (count, 3, size, size), dtype=np.uint8), np.arange(count) % 10)
        for split, count in (("train", rows), ("test", 1))
    }
    for _ in write_dataset(path, name="random", classes=10, splits=splits):
        pass


def _precompute(found: Findings, folder: Path) -> None:
    setting = precompute.Setting.made(folder, ARCHITECTURE, found.device)
    fitted = fit(setting.loaded.module, setting.data.sample_shape, found.device)
    found.add("images at once", fitted.rows, "images")
    found.add("memory of each", fitted.image / 2**20, "MiB")
    found.add("memory for all", fitted.room / 2**20, "MiB")
    precisions = precompute.PRECISIONS[:1] if found.small else precompute.PRECISIONS
    batches, repeats = ((4,), 1) if found.small else (BATCHES, 3)
    with dask_client(ClusterConfig(), found.device.type, spare=WRITERS) as client:
        for precision in precisions:
            ratio, rate = precompute.beside_bare(setting, precision, client, repeats=repeats, batches=batches)
            found.add_claim(ratio)
            found.add(f"precompute in {precision}", rate, "images/s")


def _training(found: Findings, folder: Path) -> None:
    split = open_dataset(folder / "data.zarr").train
    batch = 2 if found.small else BATCH
    setting = training.Setting(split, training.random_stores(split, folder), found.device, ARCHITECTURE, batch)
    times = seconds(training.our_steps(setting, compiled=False), repeats=1 if found.small else 9)
    for ratio in training.our_claims(setting, times):
        found.add_claim(ratio)
    for step, sources in (("ensemble", "with three stores"), ("self", "without a store")):
        each = statistics.median(times[step]) / training.STEPS
        found.add(f"a step on {batch} images, {sources}", each, "s")


if __name__ == "__main__":
    main()
