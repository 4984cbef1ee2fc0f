"""The stage ``train-static``: a model trained on clean images, then frozen; it crafts perturbations."""

import click

from pipeline import models
from pipeline.params import Params
from pipeline.precision import choose_device, choose_precision
from pipeline.training import Run, Trainer
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
    device = choose_device(params.device)
    arithmetic = choose_precision(training.precision, device)
    reading = plan_reading(data.train, {}, memory=params.streaming.memory)
    run = Run(
        rows=len(data.train),
        batch=training.batch,
        epochs=static.epochs,
        seed=static.seed,
        learning_rate=training.learning_rate,
        reading=reading,
    )
    module = models.build(static.architecture, data.sample_shape, data.classes, seed=static.seed)
    job = training_run.Job(
        name=model,
        stage="train-static",
        weights=paths.weights(params, model),
        record={"kind": "static", "name": model, "architecture": static.architecture},
        recipe={
            **training_run.common_recipe(),
            "dataset": data.train.digest,
            "static": static.model_dump(),
            "training": training.model_dump() | {"precision": arithmetic},
            "streaming": {"chunk": reading.chunk, "window": reading.window},
        },
    )
    trainer = Trainer(module, run, device=device, arithmetic=arithmetic)
    training_run.run(job, trainer, open_reader(data.train, {}, reading))
