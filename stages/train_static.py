"""The stage ``train-static``: a model that is trained or given, then frozen, and that crafts perturbations."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import params_option
from gradshard.stages.project import paths


@click.command()
@click.argument("model")
@params_option
def command(params: Params, model: str) -> None:
    """Train the static model MODEL on clean images, or take given weights as they are.

    If the parameters have static.MODEL.method, the model is trained adversarially, by one of the methods in
    docs/baselines.md. With `epochs: 0` nothing is trained, and the given weights are taken as they are.

    Reads the prepared dataset and, if static.MODEL.weights names any, the initial weights; writes
    models/static/MODEL.safetensors and the loss curve training/MODEL.tsv. If the stage is killed, the same command
    continues from the last checkpoint and ends with the same bytes.
    """
    paths.one_of(model, list(params.static), "a static model")
    # Imported here: torch takes seconds, and a mistake in the parameters is reported without it.
    from gradshard.stages.jobs.static_training import train_static

    train_static(params, model)
