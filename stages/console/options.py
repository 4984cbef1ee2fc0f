"""Options and decorators that the stage commands share."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gradshard.pipeline.config.schema import FILE_NAME, Params, read_params
from gradshard.stages.console.places import PathType
from gradshard.stages.project.new_project import check_project
from gradshard.stages.project.strays import set_strays_aside

Command = Callable[..., Any]

# An evaluation may have both gradients.
gradient_option = click.option(
    "--gradient",
    type=click.Choice(["exact", "cross_entropy"]),
    help="The gradient; default: the first of evaluation.gradients.",
)


def params_option(command: Command) -> Command:
    """Add ``--params`` and pass the checked parameters to the command as ``params``."""
    return click.option(
        "--params",
        "params",
        default=FILE_NAME,
        show_default=True,
        callback=_read,
        help="The parameter file.",
        type=PathType(dir_okay=False, path_type=Path),
    )(command)


@dataclass(frozen=True)
class ClusterConfig:
    """Place to compute: the address of a running cluster, or a number of processes here, 0 for this process alone."""

    workers: int = 0
    scheduler: str | None = None


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--workers`` and ``--scheduler`` and pass both to the command as ``cluster``."""

    @functools.wraps(command)
    def with_place(*args: object, workers: int, scheduler: str | None, **kwargs: object) -> object:
        return command(*args, cluster=ClusterConfig(workers, scheduler), **kwargs)

    with_place = click.option(
        "--workers",
        default=0,
        show_default=True,
        type=click.IntRange(min=0),
        help="The number of worker processes of a Dask cluster on this machine. With 0, this process computes on all "
        "its cores or, if GRADSHARD_DEVICES names several devices, one process computes on each.",
    )(with_place)
    return click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="The address of a running Dask cluster, such as tcp://10.0.0.1:8786; its workers must see this folder "
        "under the same path.",
    )(with_place)


def _read(context: click.Context, option: click.Parameter, value: Path) -> Params:
    del context, option
    check_project(Path())
    params = read_params(value)
    # With the parameters of another run, this project's own models would count as strays.
    if value.resolve() == Path(FILE_NAME).resolve():
        set_strays_aside(params)
    return params
