"""The model and the dataset that a store was made from, opened and checked against its manifest."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import torch

from gradshard.pipeline.attacks.end_direction import AttackSpec
from gradshard.pipeline.audit.consent import check_attack
from gradshard.pipeline.audit.store import spec_of
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.pipeline.models.precision import choose_device
from gradshard.pipeline.types import DeviceName
from gradshard.stages.console.places import PLACE, PathType
from gradshard.stages.jobs.models import LoadedModel
from gradshard.stages.store.open import cache_options
from gradshard.stages.store.origin_model import open_model, trusted_architecture
from gradshard.stages.store.origin_rows import open_rows
from gradshard.storage.formats.labelled_rows import LabelledRows, Splits
from gradshard.storage.formats.manifest import Manifest
from gradshard.storage.remote.cache import open_place
from gradshard.storage.remote.location import shown

Command = Callable[..., Any]


@dataclass(frozen=True)
class Origin:
    """Inputs that a store was made from."""

    model: LoadedModel
    data: Splits
    split: LabelledRows
    direction: GradientSpec | AttackSpec
    device: torch.device


def store_with_origin(command: Command) -> Command:
    """Add STORE and the options that name its origin; both are opened, and passed as ``store`` and ``origin``."""

    @functools.wraps(command)
    def opening(
        place: str,
        weights: Path,
        dataset: Path,
        architecture: str | None,
        attack: str | None,
        device: DeviceName,
        cache: Path,
        cache_size: int,
        **others: object,
    ) -> object:
        store = open_place(place, cache, cache_size)
        origin = open_origin(store.manifest, weights, dataset, architecture, device, where=shown(place), attack=attack)
        return command(store=store, origin=origin, **others)

    with_options = _with_options(cache_options(opening), required=True)
    return click.argument("place", metavar="STORE", type=PLACE)(with_options)


def optional_origin_options(command: Command) -> Command:
    """Add ``--model``, ``--dataset``, ``--architecture``, ``--attack`` and ``--device``, none of which is required."""
    return _with_options(command, required=False)


def _with_options(command: Command, *, required: bool) -> Command:
    options = (
        click.option(
            "--model",
            "weights",
            required=required,
            type=PathType(path_type=Path),
            help="The weights of the static model: a file of gradshard, or any state_dict.",
        ),
        click.option(
            "--dataset",
            required=required,
            type=PathType(path_type=Path),
            help="The prepared dataset, data/NAME.zarr, or an .npz archive with x_SPLIT and y_SPLIT.",
        ),
        click.option(
            "--architecture",
            help="The model's architecture, if it is somebody's own package.module:factory: its code runs only if you "
            "name it here.",
        ),
        click.option(
            "--attack",
            help="The store's attack, if it is a package.module:function or belongs to a library: its code runs only "
            "if you name it here.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            type=click.Choice(get_args(DeviceName)),
            help="The device to compute on.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def open_origin(
    manifest: Manifest,
    weights: Path,
    dataset: Path,
    architecture: str | None,
    device: DeviceName,
    *,
    where: str,
    attack: str | None = None,
) -> Origin:
    """Open the model and the dataset that a store says it was made from.

    Raises:
        GradshardError: the model or the dataset is missing, or not the one that the manifest names; or the manifest
            names code that the caller did not.
    """
    built = trusted_architecture(manifest.model, architecture, where=where)
    check_attack(manifest, attack, where=where, option="--attack")
    data, split = open_rows(dataset, manifest.dataset, where=where)
    chosen = choose_device(device)
    model = open_model(manifest.model, weights, built, data, chosen, where=where)
    return Origin(model=model, data=data, split=split, direction=spec_of(manifest, where=where), device=chosen)
