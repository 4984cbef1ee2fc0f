"""Options of the commands that plan stores, and the rate that they reckon with."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from gradshard.pipeline.cost_model import BITS_PER_PIXEL

Command = Callable[..., Any]

_AT_LEAST_1 = click.IntRange(min=1)
_POSITIVE = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True)
class Stores:
    """The stores that are planned: of so many ``sources`` over so many ``rows`` of shape (C, H, W), ``bits`` a sign.

    ``rate``, in images/s, is that of one model's signed gradients, given or ``measured`` here.
    """

    rows: int
    shape: tuple[int, int, int]
    sources: int
    bits: float
    rate: float
    measured: bool

    @property
    def pixels(self) -> int:
        """The signs of an image."""
        return math.prod(self.shape)


def stores_options(*, classes: int) -> Callable[[Command], Command]:
    """Add the options that describe stores, and pass them to the command as ``stores``.

    Args:
        classes: how many a model has that is measured, by default.
    """
    options = [
        click.option("--rows", required=True, type=_AT_LEAST_1, help="Images in the training set."),
        click.option("--shape", required=True, help="An image's shape, such as 3,299,299 (C,H,W)."),
        click.option("--sources", default=3, show_default=True, type=_AT_LEAST_1, help="Static models."),
        click.option("--rate", type=_POSITIVE, help="Signed gradients of one model on one device, images/s."),
        click.option("--architecture", help="Instead of --rate: measure it here, on the CPU, with this architecture."),
        click.option(
            "--classes", default=classes, show_default=True, type=click.IntRange(min=2), help="For --architecture."
        ),
        click.option("--bits", default=BITS_PER_PIXEL, show_default=True, type=_POSITIVE, help="Per sign."),
    ]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_stores(
            *args: object,
            rows: int,
            shape: str,
            sources: int,
            rate: float | None,
            architecture: str | None,
            classes: int,
            bits: float,
            **kwargs: object,
        ) -> object:
            sample = _sample_shape(shape)
            reckoned = _rate(rate, architecture, sample, classes)
            return command(*args, stores=Stores(rows, sample, sources, bits, reckoned, rate is None), **kwargs)

        return functools.reduce(lambda decorated, option: option(decorated), reversed(options), with_stores)

    return decorate


def _sample_shape(text: str) -> tuple[int, int, int]:
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--shape must be three numbers such as 1,28,28, but is {text}") from error
    if min(channels, height, width) < 1:
        raise click.UsageError(f"--shape must be three positive numbers, but is {text}")
    return channels, height, width


def _rate(rate: float | None, architecture: str | None, sample: tuple[int, int, int], classes: int) -> float:
    """The rate as it was given, or measured here; images/s."""
    if (rate is None) == (architecture is None):
        raise click.UsageError("give one of --rate and --architecture")
    if rate is not None:
        return rate
    assert architecture is not None
    # Imported here: arithmetic on a given rate needs no torch.
    from gradshard.stages.support.measuring import signed_gradient_rate

    return signed_gradient_rate(architecture, sample, classes)
