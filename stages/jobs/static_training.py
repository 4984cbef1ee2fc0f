"""Training of a static model, for the stage ``train-static`` after it has checked its parameters."""

from gradshard.pipeline import models
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.config.training import StaticModel
from gradshard.pipeline.models.precision import choose_precision
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.distributed import init_distributed
from gradshard.pipeline.types import PRETRAINED, RANDOM, SELF
from gradshard.stages.jobs.model_checks import check_given
from gradshard.stages.machines.device_memory import device_of
from gradshard.stages.project import paths
from gradshard.stages.training import imported_weights, training_run
from gradshard.stages.training.initial_weights import initial_static_model
from gradshard.stages.training.model_checks import check_before_training
from gradshard.stages.training.ranks import train_on_all_devices
from gradshard.stages.training.regularisation import regularised
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.streaming.reader import open_reader, plan_reading


def train_static(params: Params, model: str) -> None:
    """Train a static model on all devices of this machine, or take given weights unchanged; publish its weights.

    Raises:
        GradshardError: there is no dataset, the initial weights do not fit the model, or it cannot be trained.
    """
    params = params.for_model(model)
    static, training = params.static[model], params.training
    data = open_dataset(paths.dataset(params))
    initial = initial_static_model(static, data)
    record = {"kind": "static", "name": model, "architecture": static.architecture}
    if static.output != "logits":
        record["output"] = static.output
    called = f"architecture {static.architecture}" if static.weights == RANDOM else f"static model {model}"
    recipe = {
        **models.provenance(static.architecture),
        **({"initial": initial.digest} if initial.digest else {}),
        "dataset": data.train.digest,
        # A checkpoint is identified by its digest, not by its path.
        "static": static.model_dump(
            exclude=set() if static.weights in (RANDOM, PRETRAINED) else {"weights", "weights_key"}
        ),
    }
    if not static.epochs:
        recipe |= training_run.versions()
        place, device = paths.static_weights(model), device_of(params)
        check_given(initial.module.to(device), data, device, where=called)
        imported_weights.publish(model, initial.module, data, place, {**record, "recipe": recipe}, device)
        return
    data.check_trainable()
    reading = plan_reading(data.train, {}, memory=params.streaming.memory, window=params.streaming.window)
    chosen = device_of(params)
    if train_on_all_devices(chosen):
        return
    with init_distributed(chosen) as (ranks, device):
        run = training_run.make_run(
            params,
            len(data.train),
            ranks,
            reading,
            epochs=static.epochs,
            seed=static.seed,
            learning_rate=training.learning_rate,
            adversary=_adversary(static),
            sample_shape=data.sample_shape,
            replays=static.replayed,
        )
        arithmetic = choose_precision(training.precision, device)
        auxiliary = regularised(initial.module, training, data, run, where=called)
        check_before_training(initial.module, data, run, device, where=called, arithmetic=arithmetic)
        job = training_run.TrainingJob(
            name=model,
            stage="train-static",
            weights=paths.static_weights(model),
            classes=data.classes,
            record=record,
            recipe={**training_run.training_recipe(params, reading, device), **recipe},
        )
        trainer = training_run.make_trainer(params, initial.module, run, device, auxiliary)
        training_run.run(job, trainer, open_reader(data.train, {}, reading))


def _adversary(static: StaticModel) -> Adversary | None:
    """Return no adversary, or the model itself by its method, which ignores fields that only the default one uses."""
    if static.method is None or static.epsilon is None:
        return None
    return Adversary(
        method=static.method,
        settings=static.settings,
        epsilon=static.epsilon,
        sources=(SELF,),
        gradient="exact",
        attack="fgsm",
        alpha=0.0,
        clean_weight=0.0,
        schedule="random",
        policy="true",
        live_mode="train",
        directions={},
    )
