"""The stage ``precompute``: the signed gradients of one static model over the full training set, shard by shard."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import ClusterConfig, cluster_options, params_option
from gradshard.stages.project import paths


@click.command()
@click.argument("store")
@cluster_options
@params_option
def command(params: Params, store: str, cluster: ClusterConfig) -> None:
    """Make the sign store STORE: the signs of a static model's input gradients over the full training set.

    If the parameters have signs.STORE.attack, the store holds the signs of that attack's end directions instead: see
    docs/transfer-defence.md. Reads the prepared dataset and the weights of the model that the parameter signs.STORE
    names; writes signs/STORE.zarr, a plain Zarr group with a manifest and a card (see docs/sign-store.md).

    Each shard is one task. If the stage is killed, the same command computes only the missing shards. The bytes do not
    depend on the number of workers, nor on where they run: on this machine or, with --scheduler, on any Dask cluster
    whose workers see this folder and have gradshard installed.
    """
    paths.one_of(store, list(params.signs), "a sign store")
    # Imported here: torch takes seconds, and a mistake in the parameters is reported without it.
    from gradshard.stages.jobs.sign_stores import precompute

    precompute(params, store, cluster)
