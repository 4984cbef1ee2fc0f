"""The stage ``evaluate``: the error of every target under every attack from every source."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.support.options import ClusterConfig, cluster_options, params_option
from gradshard.stages.support.seeds import chosen_seed, seed_option


@click.command()
@seed_option
@cluster_options
@params_option
def command(params: Params, given_seed: int | None, cluster: ClusterConfig) -> None:
    """Attack every target model from every source model, the robust ones as they were trained with one seed.

    Reads the prepared test images and all weights that the parameters name; writes into evaluation/SEED/:
    matrix.parquet (an error rate with its 95 % interval per target, source and attack), examples.parquet (which
    examples each of them got right), diagnostics.json (flags that a model hides its gradient), costs.json (passes and
    bytes that each target took), metrics.json, and what the report shows. Each block of test images is one task; killed
    and started again, the stage goes on with the missing ones. Results do not depend on the number of workers.
    """
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is told without it.
    from gradshard.stages.support.error_rates import evaluate

    evaluate(params, seed, cluster)
