"""The command ``plan``: what a whole experiment takes, beyond one machine."""

from dataclasses import asdict

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from gradshard.pipeline.cost_model import GOOD_WINDOW, Experiment, Plan, experiment_cost, plan
from gradshard.stages.store.output import bytes_text, json_option, table, tell
from gradshard.stages.support.planning import Stores, stores_options


@click.command()
@stores_options(classes=1000)
@click.option(
    "--train-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Training a GPU, images/s; default: 2/7 of --rate.",
)
@click.option("--epochs", default=100, show_default=True, type=click.IntRange(min=1), help="Of training.")
@click.option("--gpus", default=8, show_default=True, type=click.IntRange(min=1), help="Or processes on CPUs.")
@click.option("--gpus-per-host", default=8, show_default=True, type=click.IntRange(min=1), help="In one machine.")
@click.option("--memory", default="4 GiB", show_default=True, help="What each GPU's reader may hold.")
@json_option
def command(
    stores: Stores,
    train_rate: float | None,
    epochs: int,
    gpus: int,
    gpus_per_host: int,
    memory: str,
    as_json: bool,
) -> None:
    """Plan an experiment past this machine: dataset, stores, and training on them.

    Tells shards, bytes, hours, the rates at which training reads, and the memory of a host. It is arithmetic on the
    rates that you give or that are measured here; docs/scale.md states what it assumes.
    """
    # In units of a pass: crafting costs 2 an image, half-batch training 3, and 2 for every second image of own batches.
    training = train_rate or stores.rate * 2 / (3 + 1 / (stores.sources + 1))
    planned = plan(rows=stores.rows, pixels=stores.pixels, sources=stores.sources, rate=stores.rate, bits=stores.bits)
    whole = experiment_cost(
        planned,
        rows=stores.rows,
        pixels=stores.pixels,
        sources=stores.sources,
        gpus=gpus,
        gpus_per_host=gpus_per_host,
        train_rate=training,
        epochs=epochs,
        budget=_bytes(memory),
        bits=stores.bits,
    )
    result = {"rate": stores.rate, "train_rate": training, **asdict(planned), **asdict(whole)}
    tell(result, table(_entries(planned, whole, stores.sources)), as_json=as_json)


def _entries(planned: Plan, whole: Experiment, sources: int) -> dict[str, str]:
    per_source = "" if whole.stores == 1 else f"; {whole.stores} stores a source, for a manifest names no more shards"
    window = "enough" if whole.window >= GOOD_WINDOW else f"few: with less than {GOOD_WINDOW} batches are alike"
    return {
        "dataset": f"{bytes_text(whole.dataset)} at most, {whole.dataset_shards} shards",
        "stores": f"{bytes_text(planned.disk)}, {planned.shards} shards of {planned.shard} rows for {sources} sources"
        + per_source,
        "precompute": f"{planned.hours:.3g} GPU hours, once; {whole.precompute_hours:.3g} on all GPUs",
        "training": f"{whole.training_hours:.3g} hours on all GPUs",
        "reading": f"{bytes_text(round(whole.read_per_gpu))}/s a GPU, {bytes_text(round(whole.read))}/s in all",
        "memory": f"{bytes_text(whole.memory_per_host)} a host, {whole.hosts} hosts",
        "shuffling": f"windows of {whole.window} rows: {window}",
        "paid off": f"after {planned.epochs_against_live} epochs against crafting live from each batch's source",
    }


def _bytes(text: str) -> int:
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise click.UsageError(f"--memory must be a size such as 4 GiB, but is {text}") from error
