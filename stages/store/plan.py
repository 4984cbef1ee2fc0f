"""``store plan``: what stores would cost, and when they have paid off."""

import math
from dataclasses import asdict

import click

from pipeline.costs import BITS_PER_PIXEL, plan
from stages.store.output import bytes_text, json_option, table, tell


@click.command()
@click.option("--rows", required=True, type=click.IntRange(min=1), help="Images in the training set.")
@click.option("--shape", required=True, help="An image's shape, such as 3,224,224 (C,H,W).")
@click.option("--sources", default=3, show_default=True, type=click.IntRange(min=1), help="Static models.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Signed gradients of one model, images/s.")
@click.option("--architecture", help="Instead of --rate: measure it here with this architecture.")
@click.option("--classes", default=10, show_default=True, type=click.IntRange(min=2), help="For --architecture.")
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
    bits: float,
    as_json: bool,
) -> None:
    """Plan the stores of some static models over a training set.

    Tells the hours of computing, the disk, files and memory they take, and after how many epochs of training they cost
    less than the crafting they replace. Each further user of the stores saves all of it.
    """
    sample = sample_shape(shape)
    measured = measured_rate(rate, architecture, sample, classes)
    planned = plan(rows=rows, pixels=math.prod(sample), sources=sources, rate=measured, bits=bits)
    entries = {
        "rate": f"{measured:.4g} images/s {'measured here' if architecture else 'as given'}",
        "computing": f"{planned.hours:.3g} hours, once",
        "disk": f"{bytes_text(planned.disk)} at {bits} bits per pixel",
        "memory": f"{bytes_text(planned.memory)} to hold the signs; less, and they stream in windows",
        "files": f"{planned.files}, for {planned.shards} shards of {planned.shard} rows (chunks of {planned.chunk})",
        "paid off": f"after {planned.epochs_against_live} epochs against crafting live from each batch's source, after "
        f"{planned.epochs_against_all_sources} against crafting from all sources on every batch",
    }
    tell({"rate": measured, **asdict(planned)}, table(entries), as_json=as_json)


def sample_shape(text: str) -> tuple[int, int, int]:
    """The shape (C, H, W) that an option gives.

    Raises:
        click.UsageError: it is not three positive numbers.
    """
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--shape must be three numbers such as 1,28,28, but is {text}") from error
    if min(channels, height, width) < 1:
        raise click.UsageError(f"--shape must be three positive numbers, but is {text}")
    return channels, height, width


def measured_rate(rate: float | None, architecture: str | None, sample: tuple[int, int, int], classes: int) -> float:
    """The rate as it was given, or measured here; images/s.

    Raises:
        click.UsageError: neither or both were given.
    """
    if (rate is None) == (architecture is None):
        raise click.UsageError("give one of --rate and --architecture")
    if rate is not None:
        return rate
    assert architecture is not None
    # Imported here: arithmetic on a given rate needs no torch.
    from stages.measuring import signed_gradient_rate

    return signed_gradient_rate(architecture, sample, classes)
