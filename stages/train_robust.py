"""The stage ``train-robust``: adversarial training, standard or ensemble, on streamed signs."""

from pathlib import Path

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import params_option
from gradshard.stages.console.seeds import chosen_seed, seed_option
from gradshard.stages.project import paths
from gradshard.stages.store.open import cache_options


@click.command()
@click.argument("model")
@seed_option
@click.option(
    "--store",
    "places",
    multiple=True,
    metavar="NAME=PLACE",
    help="Read the source NAME from the path or URL PLACE instead of signs/NAME.zarr; may be given several times.",
)
@cache_options
@params_option
def command(
    params: Params, model: str, given_seed: int | None, places: tuple[str, ...], cache: Path, cache_size: int
) -> None:
    """Train the robust model MODEL on clean and perturbed images, with one seed.

    A model without sources perturbs every batch itself (standard adversarial training). For a model with sources
    (ensemble adversarial training, section 5 of the paper), each batch is perturbed by one source: by the signs of one
    of its stores or, when it is the model's own turn, by a live forward-backward pass. Some schedules use the signs of
    all stores for every batch; with `self: false` the model never makes a live pass. With another `method` it is
    trained as in other papers, for comparison: see docs/baselines.md.

    Reads the prepared dataset and the store signs/SOURCE.zarr of every source; where stand_ins replaces a store for
    this seed, the replacement is read. Writes models/robust/MODEL-SEED.safetensors, the snapshots
    models/snapshots/MODEL-SEED/, and the curves training/MODEL-SEED.tsv. If adversarial.held_back holds rows back from
    training, the curves include the errors on these rows, and the best model is the snapshot MODEL-SEED@best. If the
    stage is killed, the same command continues from the last checkpoint and ends with the same bytes.
    """
    paths.one_of(model, list(params.robust), "a robust model")
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is reported without it.
    from gradshard.stages.jobs.robust_training import train_robust

    train_robust(params, model, seed, places, cache, cache_size)
