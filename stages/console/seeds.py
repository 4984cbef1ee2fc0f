"""The option ``--seed`` of the stages that run once for every seed of training."""

from collections.abc import Callable
from typing import Any

import click

from gradshard.pipeline.config.schema import Params
from gradshard.storage.errors import GradshardError


def seed_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--seed`` and pass its value, none if it is not given, to the command as ``given_seed``."""
    return click.option(
        "--seed",
        "given_seed",
        type=click.IntRange(min=0),
        help="One of the seeds that the parameters list; default: the first.",
    )(command)


def chosen_seed(params: Params, given: int | None) -> int:
    """Return the given seed, by default the first of the parameters.

    Raises:
        GradshardError: the parameters do not list it.
    """
    if given is None:
        return params.seeds[0]
    if given not in params.seeds:
        listed = ", ".join(map(str, params.seeds))
        raise GradshardError(f"seed {given} is none of the parameter seeds: there are {listed}; add it there first")
    return given
