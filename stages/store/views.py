"""``store views``: the agreement of a store's signs with the gradient at crops and mirror images."""

import click
import numpy as np
import torch

from gradshard.pipeline.attacks.end_direction import AttackSpec
from gradshard.pipeline.audit.augmented import AugmentedAgreement, signs_held
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.models.precision import precision_context
from gradshard.stages.console.output import json_option, table, tell
from gradshard.stages.console.progress import progress
from gradshard.stages.store.origin import Origin, store_with_origin
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.sign_reader import SignStore


@click.command()
@store_with_origin
@click.option(
    "--padding",
    default=4,
    show_default=True,
    type=click.IntRange(min=1),
    help="The padding of images before they are cropped, in pixels.",
)
@click.option(
    "--rows", "count", default=500, show_default=True, type=click.IntRange(min=1), help="The number of random rows."
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="The seed that rows, crops and mirror images are drawn by.",
)
@json_option
def command(store: SignStore, origin: Origin, padding: int, count: int, seed: int, as_json: bool) -> None:
    """Measure how well the signs of STORE hold for crops and mirror images.

    STORE is a path or URL. Training with `augment` moves images and their stored signs alike. This command does so with
    some images, and compares the moved signs with the gradient of the model at the moved images.
    """
    direction = origin.direction
    if isinstance(direction, AttackSpec):
        raise GradshardError(
            f"{store.where} holds an attack's end directions, and views are measured of gradients: name another"
        )
    _check_padding(padding, origin)
    rows = np.sort(np.random.default_rng(seed).permutation(len(store))[:count])
    planes = np.concatenate([store.read(int(row), int(row) + 1) for row in rows])
    images = torch.from_numpy(origin.split.take_images(rows)).to(origin.device)
    signs = torch.from_numpy(bitplanes.unpack(planes, store.manifest.dataset.pixels)).to(origin.device)
    labels = torch.from_numpy(store.load_classes(origin.split)[rows]).to(origin.device)
    kinds = {
        "the images themselves": Augmentation(),
        "crops": Augmentation(padding),
        "mirror images": Augmentation(0, flip=True),
        "both": Augmentation(padding, flip=True),
    }
    found: dict[str, AugmentedAgreement] = {}
    with (
        progress(f"views {store.where}", len(kinds) * len(rows), "images") as advance,
        precision_context("fp32", origin.device),
    ):
        for kind, augmentation in kinds.items():
            views = augmentation.draw(len(rows), seed=seed, step=0)
            found[kind] = signs_held(
                origin.model.module, images, signs.view_as(images), labels, views, gradient=direction.gradient
            )
            advance(len(rows))
    told = {
        kind: {"agreement": float(held.agreement.mean()), "gain": float(held.gain.mean())}
        for kind, held in found.items()
    }
    lines = {
        kind: f"{values['agreement']:.1%} of the signs agree, gain {values['gain']:.3f}"
        for kind, values in told.items()
    }
    result = {
        "store": store.where,
        "digest": store.manifest.digest,
        "rows": len(rows),
        "padding": padding,
        "views": told,
    }
    tell({**result, "views": told}, table(lines), as_json=as_json)


def _check_padding(padding: int, origin: Origin) -> None:
    """Refuse a padding by which a crop may show nothing of its image.

    Raises:
        GradshardError: the padding is refused.
    """
    _, height, width = origin.split.sample_shape
    if padding >= min(height, width):
        raise GradshardError(
            f"--padding {padding} is too much for images of {width}x{height} pixels, of which a crop may then show "
            f"none: give {min(height, width) - 1} at most"
        )
