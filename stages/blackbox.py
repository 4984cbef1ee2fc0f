"""The stage ``blackbox``: adversaries who may query the target, and a target without a gradient."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import params_option
from gradshard.stages.console.seeds import chosen_seed, seed_option


@click.command()
@seed_option
@params_option
def command(params: Params, given_seed: int | None) -> None:
    """Attack targets by queries alone, and a random forest by transferred examples, for one seed.

    Attacks the targets that `blackbox` names; robust models are those trained with this seed. Writes
    blackbox/SEED/results.json: for each target, the error by the number of queries, under attacks that use a substitute
    trained on the target's labels, and under attacks that estimate gradients from the target's confidences; and the
    forest's error on transferred examples. Models that are the same for every seed are queried, and craft examples,
    with the first seed only.
    """
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is reported without it.
    from gradshard.stages.jobs.queries import ask

    ask(params, seed)
