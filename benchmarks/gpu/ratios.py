"""The ratios of `python -m benchmarks` that need no other library, on a GPU: store, training step, unpacking."""

import tempfile
from pathlib import Path

import click

from benchmarks import precompute, training, unpacking
from benchmarks.digits import dataset_of_digits
from benchmarks.gpu.part import Findings, findings, part_options
from benchmarks.ratios import seconds
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.jobs.sign_stores import WRITERS
from gradshard.stages.machines.dask_cluster import dask_client
from gradshard.storage.formats.dataset import open_dataset

BATCHES = (256, 1024, 4096)


@click.command()
@part_options
def main(result: Path, device: str, small: bool) -> None:
    """Measure each in turn with what it is measured by."""
    with findings(result, device, small=small) as found, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset_of_digits(folder / "data.zarr", rows=256 if small else 60_000)
        _unpacking(found)
        _training(found, folder)
        _stores(found, folder)


def _unpacking(found: Findings) -> None:
    for compiled in (False, True):
        for ratio in unpacking.measure_on(found.device, repeats=1 if found.small else 25, compiled=compiled):
            found.add_claim(ratio)


def _training(found: Findings, folder: Path) -> None:
    split = open_dataset(folder / "data.zarr").train
    setting = training.Setting(split, training.random_stores(split, folder), found.device)
    steps = training.our_steps(setting, compiled=not found.small)
    for ratio in training.our_claims(setting, seconds(steps, repeats=1 if found.small else 45)):
        found.add_claim(ratio)


def _stores(found: Findings, folder: Path) -> None:
    setting = precompute.Setting.made(folder, "A", found.device)
    batches, repeats = (BATCHES[:1], 1) if found.small else (BATCHES, 5)
    with dask_client(ClusterConfig(), found.device.type, spare=WRITERS) as client:
        for precision in precompute.PRECISIONS:
            ratio, rate = precompute.beside_bare(setting, precision, client, repeats=repeats, batches=batches)
            found.add_claim(ratio)
            found.add(f"precompute of model A in {precision}", rate, "images/s")


if __name__ == "__main__":
    main()
