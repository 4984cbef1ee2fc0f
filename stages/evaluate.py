"""The stage ``evaluate``: the error of every target under every attack from every source."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import ClusterConfig, cluster_options, params_option
from gradshard.stages.console.seeds import chosen_seed, seed_option


@click.command()
@seed_option
@cluster_options
@params_option
def command(params: Params, given_seed: int | None, cluster: ClusterConfig) -> None:
    """Attack every target from every source, for one seed.

    Reads the prepared test images and all weights that the parameters name; robust models are those trained with this
    seed. Writes to evaluation/SEED/: matrix.parquet (the error rate with its 95 % interval for each target, source and
    attack), examples.parquet (for each of these, which examples were classified right), diagnostics.json (flags that
    point to a masked gradient), costs.json (passes and bytes that each target took), metrics.json, and other files for
    the report. Each block of test images is one task; if the stage is killed, the same command continues with the
    missing blocks. Results do not depend on the number of workers.
    """
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is reported without it.
    from gradshard.stages.jobs.error_rates import evaluate

    evaluate(params, seed, cluster)
