"""The command ``plan``: the space, time and money that stores and an experiment on them take, before they are made."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from gradshard.pipeline.cost_model import BITS_OF_MANY_STEPS, BITS_PER_PIXEL, GOOD_WINDOW, Bill, Plan, bill, plan
from gradshard.stages.console.output import bytes_text, json_option, table, tell
from gradshard.stages.console.places import PathType
from gradshard.stages.console.price_table import read_prices
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import COPIES_LIMIT

_AT_LEAST_1 = click.IntRange(min=1)


class _Number(click.FloatRange):
    """A number in a range, which NaN is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


_POSITIVE = _Number(min=0, min_open=True, max=1e15)
_SOURCES = 3

Shape = tuple[int, int, int]


class _Prepared(NamedTuple):
    """Numbers of a project's training images and static models, and the shape of the images."""

    rows: int
    shape: Shape
    sources: int


def _sample_shape(context: click.Context, option: click.Parameter, text: str | None) -> Shape | None:
    del context, option
    if text is None:
        return None
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--shape must be three numbers such as 1,28,28, but is {text}") from error
    if min(channels, height, width) < 1:
        raise click.UsageError(f"--shape must be three positive numbers, but is {text}")
    return channels, height, width


def _bytes(context: click.Context, option: click.Parameter, text: str) -> int:
    del context, option
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise click.UsageError(f"--memory must be a size such as 4 GiB, but is {text}") from error
    if size < 1:
        raise click.UsageError(f"--memory must be at least a byte, but is {text}")
    return size


@click.command()
@click.option("--rows", type=_AT_LEAST_1, help="The number of training images; default: this project's.")
@click.option(
    "--shape", callback=_sample_shape, help="An image's shape (C,H,W), such as 3,299,299; default: this project's."
)
@click.option(
    "--sources", type=_AT_LEAST_1, help="The number of static models, each with a store; default: this project's, or 3."
)
@click.option(
    "--rate", type=_POSITIVE, help="The rate at which one GPU computes signed gradients of one model, in images/s."
)
@click.option("--architecture", help="Measure the rate here with this architecture, instead of --rate.")
@click.option(
    "--classes",
    default=10,
    show_default=True,
    type=click.IntRange(min=2),
    help="The number of classes, for --architecture.",
)
@click.option(
    "--copies",
    default=1,
    show_default=True,
    type=click.IntRange(1, COPIES_LIMIT),
    help="The number of copies of the attack in each store.",
)
@click.option(
    "--passes",
    default=1,
    show_default=True,
    type=_AT_LEAST_1,
    help="The number of passes that the attack makes for each image and copy, that is, its steps; 1 for gradients, "
    "FGSM and RAND+FGSM.",
)
@click.option(
    "--bits",
    type=_POSITIVE,
    help=f"Bits per sign on disk; default: {BITS_PER_PIXEL}, or {BITS_OF_MANY_STEPS} for an attack of several passes.",
)
@click.option(
    "--train-rate", type=_POSITIVE, help="The rate of training on one GPU, in images/s; default: derived from --rate."
)
@click.option("--epochs", default=100, show_default=True, type=_AT_LEAST_1, help="The number of training epochs.")
@click.option(
    "--seeds",
    default=1,
    show_default=True,
    type=_AT_LEAST_1,
    help="The number of seeds; one model is trained with each.",
)
@click.option(
    "--gpus", default=1, show_default=True, type=_AT_LEAST_1, help="The number of GPUs, or of processes on CPUs."
)
@click.option(
    "--gpus-per-host", default=8, show_default=True, type=_AT_LEAST_1, help="The number of GPUs in one machine."
)
@click.option("--memory", default="4 GiB", show_default=True, callback=_bytes, help="The memory of each GPU's reader.")
@click.option(
    "--prices", type=PathType(dir_okay=False, path_type=Path), help="A YAML file with prices: see docs/scale.md."
)
@json_option
def command(
    rows: int | None,
    shape: Shape | None,
    sources: int | None,
    rate: float | None,
    architecture: str | None,
    classes: int,
    copies: int,
    passes: int,
    bits: float | None,
    train_rate: float | None,
    epochs: int,
    seeds: int,
    gpus: int,
    gpus_per_host: int,
    memory: int,
    prices: Path | None,
    as_json: bool,
) -> None:
    """Plan what sign stores, and training on them, will take.

    Prints the number of shards, bytes and hours, the rates at which training reads, the memory of each host, and after
    how many epochs the stores, of gradients or of an attack, have cost less than the crafting that they replace; each
    further user of the stores saves all of that crafting. With --prices, it also prints what everything costs. The plan
    is arithmetic on the rates that you give or that are measured here; docs/scale.md has the formulas and states what
    they assume.
    """
    priced = None if prices is None else read_prices(prices)
    if rows is None or shape is None:
        prepared = _of_project()
        rows, shape, sources = rows or prepared.rows, shape or prepared.shape, sources or prepared.sources
    sources = sources or _SOURCES
    known = _rate(rate, architecture, shape, classes)
    planned = plan(
        rows=rows,
        pixels=math.prod(shape),
        sources=sources,
        rate=known,
        train_rate=train_rate,
        epochs=epochs,
        seeds=seeds,
        gpus=gpus,
        gpus_per_host=gpus_per_host,
        budget=memory,
        bits=bits,
        copies=copies,
        passes=passes,
    )
    origin = "measured here" if rate is None else "as given"
    entries = {"rate": f"{known:.4g} images/s a GPU, {origin}"} | _entries(planned, sources)
    found = {"rate": known, **asdict(planned)}
    if priced is not None:
        cost = bill(planned, priced, gpus=gpus)
        entries["cost"], found["cost"] = _cost_text(cost, str(prices)), asdict(cost)
    tell(found, table(entries), as_json=as_json)


def _of_project() -> _Prepared:
    """Return the numbers of the project in this folder.

    Raises:
        GradshardError: there is none, or its dataset is not prepared.
    """
    # Imported here: not needed if the numbers are given.
    from gradshard.pipeline.config.schema import read_params
    from gradshard.stages.project import paths
    from gradshard.storage.formats.dataset import open_dataset

    try:
        params = read_params(Path("params.yaml"))
        train = open_dataset(paths.dataset(params)).train
    except GradshardError as error:
        raise GradshardError(
            "give --rows and --shape in numbers, such as --rows 50000 --shape 3,32,32; without them they are those of "
            f"the project in this folder, but {error}"
        ) from error
    return _Prepared(len(train), train.sample_shape, len({store.model for store in params.signs.values()}))


def _rate(rate: float | None, architecture: str | None, shape: Shape, classes: int) -> float:
    """Return the given rate, or measure it here; images/s."""
    if rate is not None and architecture is None:
        return rate
    if rate is not None or architecture is None:
        raise click.UsageError("give one of --rate and --architecture")
    # Imported here: arithmetic on a given rate needs no torch.
    from gradshard.stages.machines.measuring import signed_gradient_rate

    return signed_gradient_rate(architecture, shape, classes)


def _cost_text(cost: Bill, prices: str) -> str:
    return (
        f"{cost.stores:.4g} for the stores, {cost.training:.4g} for training, {cost.month:.4g} a month to keep dataset "
        f"and stores, by {prices}"
    )


def _entries(planned: Plan, sources: int) -> dict[str, str]:
    several = f"; {planned.stores} stores a source, for a manifest names no more shards" if planned.stores > 1 else ""
    each = f" in {planned.copies} copies" if planned.copies > 1 else ""
    passes = f", {planned.passes} passes an image and copy" if planned.passes > 1 else ""
    window = "enough" if planned.window >= GOOD_WINDOW else f"few: with less than {GOOD_WINDOW} batches are alike"
    return {
        "dataset": f"{bytes_text(planned.dataset)} at most, {planned.dataset_shards} shards",
        "stores": f"{bytes_text(planned.disk)} at {planned.bits} bits per sign for {sources} sources{each}, "
        f"{planned.files} files, {planned.shards} shards of {planned.shard} rows (chunks of {planned.chunk}){several}",
        "held": f"{bytes_text(planned.memory)} to hold all signs in memory; with less, they stream in windows",
        "precompute": f"{planned.hours:.3g} GPU hours, once{passes}; {planned.precompute_hours:.3g} on all GPUs",
        "training": f"{planned.training_hours:.3g} hours on all GPUs",
        "reading": f"{bytes_text(round(planned.read_per_gpu))}/s a GPU, {bytes_text(round(planned.read))}/s in all; "
        f"at most {planned.read_over_needed:.3f} of what is needed",
        "memory": f"{bytes_text(planned.memory_per_host)} a host, {planned.hosts} hosts",
        "shuffling": f"windows of {planned.window} rows over all GPUs (streaming.window): {window}",
        "paid off": f"after {planned.epochs_against_live} epochs against crafting live from each batch's source, after "
        f"{planned.epochs_against_all_sources} against crafting from all sources on every batch",
    }
