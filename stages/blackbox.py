"""The stage ``blackbox``: adversaries who may ask the target, and a target without a gradient."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.support.options import params_option
from gradshard.stages.support.seeds import chosen_seed, seed_option


@click.command()
@seed_option
@params_option
def command(params: Params, given_seed: int | None) -> None:
    """Attack the targets of `blackbox`, trained with one seed, by queries alone, and a forest by others' examples.

    Writes blackbox/SEED/results.json: per target, the error against the number of queries, for a substitute trained on
    the target's labels and for gradients estimated from its confidences; and the forest's error on examples that
    transfer. Models that no seed changes are asked and attack with the first alone.
    """
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is told without it.
    from gradshard.stages.support.queries import ask

    ask(params, seed)
