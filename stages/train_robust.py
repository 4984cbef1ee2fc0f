"""The stage ``train-robust``: adversarial training, standard or ensemble, on streamed signs."""

from pathlib import Path

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.store.open import cache_options
from gradshard.stages.support import paths
from gradshard.stages.support.options import params_option
from gradshard.stages.support.seeds import chosen_seed, seed_option


@click.command()
@click.argument("model")
@seed_option
@click.option(
    "--store",
    "places",
    multiple=True,
    metavar="NAME=PLACE",
    help="Read the source NAME from this path or URL instead of signs/NAME.zarr; may be repeated.",
)
@cache_options
@params_option
def command(
    params: Params, model: str, given_seed: int | None, places: tuple[str, ...], cache: Path, cache_size: int
) -> None:
    """Train the robust model MODEL on clean and perturbed images, with one of the parameter seeds.

    A model without sources perturbs every batch itself (standard adversarial training). One with sources takes, batch
    by batch, the signs of one of its stores, or its own turn, and only then makes a live
    forward-backward pass (ensemble adversarial training, section 5 of the paper). Some schedules take the signs of all
    stores for every batch; with `self: false` it never makes a pass of its own. With another `method` it is trained as
    other papers do, for comparison: docs/baselines.md.

    Reads the prepared dataset and signs/SOURCE.zarr of every source, or of the store that stands for it in the run of
    this seed; writes models/robust/MODEL-SEED.safetensors, the snapshots models/snapshots/MODEL-SEED/, and the curves
    training/MODEL-SEED.tsv. Where adversarial.held_back holds rows back from training, the curves have the errors on
    them, and the best model is the snapshot MODEL-SEED@best. Killed and started again, it goes on from its last
    checkpoint and ends with the same bytes.
    """
    paths.one_of(model, list(params.robust), "a robust model")
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is told without it.
    from gradshard.stages.support.robust_training import train_robust

    train_robust(params, model, seed, places, cache, cache_size)
