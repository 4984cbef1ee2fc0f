"""``store fidelity``: the share of an attack's transfer that the stored signs keep."""

from pathlib import Path

import click
import numpy as np
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.attacks.end_direction import AttackSpec
from gradshard.pipeline.audit.fidelity import CLEAN, Fidelity, measure
from gradshard.stages.console.output import json_option, tell
from gradshard.stages.console.places import PLACE
from gradshard.stages.console.progress import progress
from gradshard.stages.store.origin import Origin, store_with_origin
from gradshard.stages.store.origin_model import built_model
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.sign_reader import SignStore


@click.command()
@store_with_origin
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    type=PLACE,
    metavar="TARGET",
    help="A model to be fooled: a weights file of gradshard, or NAME=ARCHITECTURE:WEIGHTS; may be given several times. "
    "The store's own model is always one.",
)
@click.option(
    "--rows", "count", default=500, show_default=True, type=click.IntRange(min=1), help="The number of random rows."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="The seed that rows are drawn by."
)
@click.option(
    "--copy", default=0, show_default=True, type=click.IntRange(min=0), help="The copy of the attack, counted from 0."
)
@click.option(
    "--eps",
    "epsilons",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="An epsilon to measure at, in pixel units; may be given several times. Default: that of the store's attack; "
    "required if the store's signs are for any epsilon.",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    type=click.FloatRange(0, 1),
    help="A further threshold to try: a pixel's sign is 0 if the pixel moved less than this share of the way it could "
    "go. Only for attacks of several steps; may be given several times.",
)
@json_option
def command(
    store: SignStore,
    origin: Origin,
    targets: tuple[str, ...],
    count: int,
    seed: int,
    copy: int,
    epsilons: tuple[float, ...],
    thresholds: tuple[float, ...],
    as_json: bool,
) -> None:
    """Measure how much of an attack's transfer the signs of STORE keep.

    STORE is a path or URL. At random rows, prints the error of each target under the attack itself, crafted live in
    full precision, and under the stored signs. With --eps you can see what the signs are worth at another epsilon than
    the store's.
    """
    opened = store.of_copy(copy)
    fooled = _fooled(targets, origin)
    rows = np.sort(np.random.default_rng(seed).permutation(len(opened))[:count])
    asked = epsilons or _own(origin, store.where)
    with progress(f"fidelity {store.where}", len(asked) * len(rows), "images") as advance:
        found = measure(
            opened,
            origin.split,
            origin.model.module,
            origin.direction,
            fooled,
            rows=rows,
            epsilons=asked,
            thresholds=thresholds,
            advance=advance,
        )
    result = {
        "store": store.where,
        "digest": opened.manifest.digest,
        "rows": len(rows),
        "copy": copy,
        "epsilons": {f"{part.epsilon:g}": part.errors for part in found},
    }
    tell(result, [line for part in found for line in _table(part)], as_json=as_json)


def _own(origin: Origin, store: str) -> tuple[float, ...]:
    direction = origin.direction
    if isinstance(direction, AttackSpec) and direction.attack != "fgsm":
        return (direction.epsilon,)
    raise GradshardError(f"{store} holds signs for any epsilon: give one by --eps")


def _fooled(targets: tuple[str, ...], origin: Origin) -> dict[str, nn.Module]:
    """Return the store's own model and the targets, by name.

    Raises:
        GradshardError: a target is missing, does not fit the images or would run code that nobody named, or two models
            have the same name.
    """
    found = {"source": origin.model.module}
    for target in targets:
        name, architecture, weights = _named(target, origin.model.architecture)
        if name in found:
            raise GradshardError(f"two models are called {name}: give one as NAME=ARCHITECTURE:WEIGHTS")
        found[name] = built_model(weights, architecture, origin.data, origin.device).module
    return found


def _named(target: str, trusted: str) -> tuple[str, str, Path]:
    """Return the name, the architecture and the weights of a target, which is a file or has them all."""
    name, _, model = target.partition("=")
    architecture, _, weights = model.rpartition(":")
    if name and architecture and weights:
        return name, architecture, Path(weights)
    path = Path(target)
    _, record = checkpoints.load(path)
    recorded = str(record.get("architecture"))
    if models.runs_user_code(recorded) and recorded != trusted:
        raise GradshardError(
            f"{path} is of architecture {recorded}, whose code runs only if you name it: give --target "
            f"{path.stem}={recorded}:{path}"
        )
    return path.stem, recorded, path


def _table(part: Fidelity) -> list[str]:
    """Return the errors at one epsilon, in percent, one line for each method."""
    names = list(part.errors[CLEAN])
    width = max(map(len, part.errors)) + 2
    head = f"epsilon {part.epsilon:g}, {part.rows} rows, error in percent"
    lines = [head, " " * width + "  ".join(f"{name:>9}" for name in names)]
    for method, errors in part.errors.items():
        rates = "  ".join(f"{100 * errors[name] / part.rows:>{max(9, len(name))}.1f}" for name in names)
        lines.append(f"{method:<{width}}{rates}")
    return lines
