"""``store diff``: the agreement of two stores over the same dataset."""

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from gradshard.stages.console.output import found_something, json_option, tell
from gradshard.stages.console.places import PLACE
from gradshard.stages.console.progress import progress
from gradshard.stages.store.open import cache_options
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.maintenance.diff import compare
from gradshard.storage.remote.cache import open_place


@click.command()
@click.argument("one", type=PLACE)
@click.argument("other", type=PLACE)
@cache_options
@json_option
def command(one: str, other: str, cache: Path, cache_size: int, as_json: bool) -> None:
    """Compare the stores ONE and OTHER sign by sign.

    ONE and OTHER are paths or URLs. Prints the share of equal signs, overall and for each class (by the labels in ONE),
    and whether the content is the same. The exit code is 1 if it is not.
    """
    stores = [open_place(place, cache, cache_size) for place in (one, other)]
    _check_same_rows(*stores)
    with progress("diff", len(stores[0]), "rows") as advance:
        agreement, labels = compare(*stores, advance=advance)
    differing = int((labels[0] != labels[1]).sum())
    copies = [len(store.in_turn) for store in stores]
    same = bool((agreement == 1).all()) and not differing and copies[0] == copies[1]
    classes = {
        str(label): {"rows": int((labels[0] == label).sum()), "agreement": _mean(agreement[labels[0] == label])}
        for label in np.unique(labels[0]).tolist()
    }
    result = {
        "same_content": same,
        "agreement": _mean(agreement),
        "equal_rows": int((agreement == 1).sum()),
        "rows": len(agreement),
        "differing_labels": differing,
        "copies": copies,
        "classes": classes,
    }
    lines = [f"class {name}: {found['agreement']:.4%} of the signs agree" for name, found in classes.items()]
    counts = "" if copies[0] == copies[1] else f", {copies[0]} and {copies[1]} copies"
    verdict = "the same content" if same else f"another content ({differing} labels differ{counts})"
    lines.append(
        f"all: {_mean(agreement):.4%} of the signs, {result['equal_rows']} of {len(agreement)} rows: {verdict}"
    )
    tell(result, lines, as_json=as_json)
    if not same:
        raise found_something()


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean())


def _check_same_rows(one: SignStore, other: SignStore) -> None:
    if one.manifest.dataset.digest != other.manifest.dataset.digest:
        raise GradshardError(
            f"{one.where} and {other.where} are over different datasets, {one.manifest.dataset.digest[:12]} and "
            f"{other.manifest.dataset.digest[:12]}: only stores over the same rows can be compared"
        )
    rows = [(store.manifest.dataset.rows, *store.manifest.dataset.sample_shape) for store in (one, other)]
    if rows[0] != rows[1]:
        raise GradshardError(
            f"{one.where} and {other.where} name the same dataset, but claim rows of the shapes {rows[0]} and "
            f"{rows[1]}: one of them is not what it claims, so run `gradshard store audit` on both"
        )
