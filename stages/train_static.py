"""The stage ``train-static``: a model trained on clean images, then frozen; it crafts perturbations."""

import click

from pipeline import models
from pipeline.params import Params
from pipeline.precision import choose_device
from pipeline.training.ranks import joined
from stages import paths, training_run
from stages.options import params_option
from storage.datasets.dataset import open_dataset
from storage.stream import open_reader, plan_reading


@click.command()
@click.argument("model")
@params_option
def command(params: Params, model: str) -> None:
    """Train the static model MODEL on clean images.

    Reads the prepared dataset; writes models/static/MODEL.safetensors and its loss curve, training/MODEL.tsv. Killed
    and started again, it goes on from its last checkpoint and ends with the same bytes.
    """
    paths.one_of(model, list(params.static), "a static model")
    static, training = params.static[model], params.training
    data = open_dataset(paths.dataset(params))
    reading = plan_reading(data.train, {}, memory=params.streaming.memory)
    with joined(choose_device(params.device)) as (ranks, device):
        run = training_run.make_run(
            params,
            len(data.train),
            ranks,
            reading,
            epochs=static.epochs,
            seed=static.seed,
            learning_rate=training.learning_rate,
        )
        module = models.build(static.architecture, data.sample_shape, data.classes, seed=static.seed)
        job = training_run.Job(
            name=model,
            stage="train-static",
            weights=paths.weights(params, model),
            record={"kind": "static", "name": model, "architecture": static.architecture},
            recipe={
                **training_run.training_recipe(params, reading, device),
                "dataset": data.train.digest,
                "static": static.model_dump(),
            },
        )
        trainer = training_run.make_trainer(params, module, run, device)
        training_run.run(job, trainer, open_reader(data.train, {}, reading, batch=training.batch))
