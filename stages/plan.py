"""The command ``plan``: what a whole experiment takes, beyond one machine."""

import math
from dataclasses import asdict

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from pipeline.costs import BITS_PER_PIXEL, GOOD_WINDOW, Experiment, Plan, experiment, plan
from stages.store.output import bytes_text, json_option, table, tell
from stages.store.plan import measured_rate, sample_shape


@click.command()
@click.option("--rows", required=True, type=click.IntRange(min=1), help="Images in the training set.")
@click.option("--shape", required=True, help="An image's shape, such as 3,299,299 (C,H,W).")
@click.option("--sources", default=3, show_default=True, type=click.IntRange(min=1), help="Static models.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Signed gradients a GPU, images/s.")
@click.option("--architecture", help="Instead of --rate: measure it here, on the CPU, with this architecture.")
@click.option("--classes", default=1000, show_default=True, type=click.IntRange(min=2), help="For --architecture.")
@click.option(
    "--train-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Training a GPU, images/s; default: 2/7 of --rate.",
)
@click.option("--epochs", default=100, show_default=True, type=click.IntRange(min=1), help="Of training.")
@click.option("--gpus", default=8, show_default=True, type=click.IntRange(min=1), help="Or processes on CPUs.")
@click.option("--gpus-per-host", default=8, show_default=True, type=click.IntRange(min=1), help="In one machine.")
@click.option("--memory", default="4 GiB", show_default=True, help="What each GPU's reader may hold.")
@click.option(
    "--bits", default=BITS_PER_PIXEL, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Per sign."
)
@json_option
def command(
    rows: int,
    shape: str,
    sources: int,
    rate: float | None,
    architecture: str | None,
    classes: int,
    train_rate: float | None,
    epochs: int,
    gpus: int,
    gpus_per_host: int,
    memory: str,
    bits: float,
    as_json: bool,
) -> None:
    """Plan an experiment past this machine: dataset, stores, and training on them.

    Tells shards, bytes, hours, the rates at which training reads, and the memory of a host. It is arithmetic on the
    rates that you give or that are measured here; docs/scale.md states what it assumes.
    """
    pixels = math.prod(sample_shape(shape))
    crafting = measured_rate(rate, architecture, sample_shape(shape), classes)
    # In units of a pass: crafting costs 2 an image, half-batch training 3, and 2 for every second image of own batches.
    training = train_rate or crafting * 2 / (3 + 1 / (sources + 1))
    stores = plan(rows=rows, pixels=pixels, sources=sources, rate=crafting, bits=bits)
    whole = experiment(
        stores,
        rows=rows,
        pixels=pixels,
        sources=sources,
        gpus=gpus,
        gpus_per_host=gpus_per_host,
        train_rate=training,
        epochs=epochs,
        budget=_bytes(memory),
        bits=bits,
    )
    result = {"rate": crafting, "train_rate": training, **asdict(stores), **asdict(whole)}
    tell(result, table(_entries(stores, whole, sources)), as_json=as_json)


def _entries(stores: Plan, whole: Experiment, sources: int) -> dict[str, str]:
    per_source = "" if whole.stores == 1 else f"; {whole.stores} stores a source, for a manifest names no more shards"
    window = "enough" if whole.window >= GOOD_WINDOW else f"few: with less than {GOOD_WINDOW} batches are alike"
    return {
        "dataset": f"{bytes_text(whole.dataset)} at most, {whole.dataset_shards} shards",
        "stores": f"{bytes_text(stores.disk)}, {stores.shards} shards of {stores.shard} rows for {sources} sources"
        + per_source,
        "precompute": f"{stores.hours:.3g} GPU hours, once; {whole.precompute_hours:.3g} on all GPUs",
        "training": f"{whole.training_hours:.3g} hours on all GPUs",
        "reading": f"{bytes_text(round(whole.read_per_gpu))}/s a GPU, {bytes_text(round(whole.read))}/s in all",
        "memory": f"{bytes_text(whole.memory_per_host)} a host, {whole.hosts} hosts",
        "shuffling": f"windows of {whole.window} rows: {window}",
        "paid off": f"after {stores.epochs_against_live} epochs against crafting live from each batch's source",
    }


def _bytes(text: str) -> int:
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise click.UsageError(f"--memory must be a size such as 4 GiB, but is {text}") from error
