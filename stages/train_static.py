"""The stage ``train-static``: a model that is trained, or given, and then frozen; it crafts perturbations."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.support import paths
from gradshard.stages.support.options import params_option


@click.command()
@click.argument("model")
@params_option
def command(params: Params, model: str) -> None:
    """Train the static model MODEL on clean images, or take weights as they are.

    With static.MODEL.method it is trained adversarially, by one of the methods of docs/baselines.md.

    Reads the prepared dataset and, if static.MODEL.weights names them, the weights to begin with; writes
    models/static/MODEL.safetensors and its loss curve, training/MODEL.tsv. Killed and started again, it goes on from
    its last checkpoint and ends with the same bytes. With epochs 0 nothing is trained.
    """
    paths.one_of(model, list(params.static), "a static model")
    # Imported here: torch takes seconds, and a mistake in the parameters is told without it.
    from gradshard.stages.support.static_training import train_static

    train_static(params, model)
