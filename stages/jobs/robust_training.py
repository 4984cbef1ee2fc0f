"""Training of a robust model, for the stage ``train-robust`` after it has checked its parameters."""

from pathlib import Path

from gradshard.pipeline import models
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.config.training import RobustModel
from gradshard.pipeline.gradients.random_step import random_steps
from gradshard.pipeline.models.precision import choose_precision
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.distributed import init_distributed
from gradshard.pipeline.training.methods.registry import DEFAULT_METHOD
from gradshard.stages.console.progress import echo
from gradshard.stages.jobs.stored_attacks import check_promised, tell_of_other_epsilons
from gradshard.stages.machines.device_memory import device_of
from gradshard.stages.project import paths
from gradshard.stages.training import held_back, training_run
from gradshard.stages.training.model_checks import check_before_training
from gradshard.stages.training.ranks import train_on_all_devices
from gradshard.stages.training.regularisation import regularised
from gradshard.stages.training.warm_start import initial_robust_model
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.home import at_home
from gradshard.storage.remote.cache import open_place
from gradshard.storage.streaming.reader import Reader, open_reader, plan_reading
from gradshard.storage.streaming.shuffle import Rows


def train_robust(params: Params, model: str, seed: int, places: tuple[str, ...], cache: Path, cache_size: int) -> None:
    """Train a robust model with a seed, on all devices of this machine, and publish its weights and snapshots.

    Args:
        params: the parameters of the project.
        model: the name of a robust model in them.
        seed: one of their seeds.
        places: NAME=PLACE for each source whose store is not read from the project.
        cache: the folder that keeps what was read of remote stores.
        cache_size: the most bytes kept there of one store.

    Raises:
        GradshardError: the dataset or a store is missing or does not fit, or the model cannot be trained.
    """
    params = params.for_model(model)
    robust = params.robust[model]
    trained = params.in_run(model, seed)
    data = open_dataset(paths.dataset(params))
    data.check_trainable()
    given = _given_places(places, robust)
    stores = _open_sources(params, robust, seed, given, data.train, cache, cache_size)
    tell_of_other_epsilons(stores, epsilon=params.attack.epsilon)
    reading = plan_reading(data.train, stores, memory=params.streaming.memory, window=params.streaming.window)
    held = held_back.rows_of(params.adversarial.held_back, len(data.train))
    chosen = device_of(params)
    if train_on_all_devices(chosen):
        return
    with init_distributed(chosen) as (ranks, device):
        run = training_run.make_run(
            params,
            len(data.train),
            ranks,
            reading,
            epochs=robust.epochs,
            seed=seed,
            learning_rate=params.adversarial.learning_rate,
            adversary=_adversary(params, robust, stores),
            held_back=held,
            sample_shape=data.sample_shape,
            replays=robust.replayed,
        )
        initial = initial_robust_model(params, model, seed, data)
        auxiliary = regularised(initial.module, params.training, data, run, where=f"architecture {robust.architecture}")
        check_before_training(
            initial.module,
            data,
            run,
            device,
            where=f"architecture {robust.architecture}",
            arithmetic=choose_precision(params.training.precision, device),
        )
        reader = open_reader(data.train, stores, reading)
        job = training_run.TrainingJob(
            name=trained,
            stage="train-robust",
            weights=paths.robust_weights(trained),
            classes=data.classes,
            record={"kind": "robust", "name": model, "seed": seed, "architecture": robust.architecture},
            recipe={
                **training_run.training_recipe(params, reading, device),
                **models.provenance(robust.architecture),
                **({"initial": initial.digest} if initial.digest else {}),
                "dataset": data.train.digest,
                "stores": {source: store.manifest.content for source, store in stores.items()},
                "robust": robust.model_dump() | {"seed": seed},
                "epsilon": params.attack.epsilon,
                "alpha": params.attack.alpha if robust.attack == "rand_fgsm" else None,
                "adversarial": params.adversarial.model_dump(),
            },
            snapshots=tuple(robust.snapshots),
            judge=_judge(params, held, reader, stores) if ranks.first else None,
        )
        trainer = training_run.make_trainer(params, initial.module, run, device, auxiliary)
        training_run.run(job, trainer, reader)


def _judge(params: Params, held: Rows | None, reader: Reader, stores: dict[str, SignStore]) -> held_back.Judge | None:
    chosen = params.adversarial.held_back
    if chosen is None or held is None:
        return None
    return held_back.make_judge(chosen, held, reader, stores, params.attack.epsilon)


def _given_places(given: tuple[str, ...], robust: RobustModel) -> dict[str, str]:
    """Return where the command line says that sources' stores are."""
    places = {}
    for text in given:
        source, equals, place = text.partition("=")
        if not equals or not place:
            raise GradshardError(f"--store {text}: write NAME=PLACE, such as A=https://example.org/A.zarr")
        paths.one_of(source, robust.sources, "a source of this model")
        places[source] = at_home(place)
    return places


def _open_sources(
    params: Params,
    robust: RobustModel,
    seed: int,
    given: dict[str, str],
    split: Split,
    cache: Path,
    cache_size: int,
) -> dict[str, SignStore]:
    """Open the store of each source: where the command line says, else the project's, which is checked."""
    stores = {}
    for source in robust.sources:
        name = params.in_run(source, seed)
        store = open_place(given.get(source, str(paths.store(name))), cache, cache_size)
        store.check_made_for(split)
        if source not in given:
            wanted = params.signs[name]
            check_promised(store, wanted, paths.static_weights(wanted.model), name=name, source=source)
        stores[source] = store
    _tell_of_twins(stores)
    return stores


def _tell_of_twins(stores: dict[str, SignStore]) -> None:
    """Warn of one model under two names, which is one source that counts twice."""
    first: dict[str, str] = {}
    for source, store in stores.items():
        other = first.setdefault(store.manifest.model.digest, source)
        if other != source:
            echo(f"sources {other} and {source} are signs of one model, {store.manifest.model.digest[:12]}")


def _adversary(params: Params, robust: RobustModel, stores: dict[str, SignStore]) -> Adversary:
    adversarial = params.adversarial
    return Adversary(
        method=robust.method,
        settings=robust.settings,
        epsilon=params.attack.epsilon,
        objective=adversarial.objective,
        adversarial_weight=robust.adversarial_weight or adversarial.adversarial_weight,
        # The other methods are defined for one epsilon.
        epsilon_law=adversarial.epsilon_law if robust.method == DEFAULT_METHOD else "fixed",
        clean_weight=adversarial.clean_weight if robust.clean_weight is None else robust.clean_weight,
        sources=robust.crafters,
        weights=robust.weights,
        schedule=robust.schedule or adversarial.schedule,
        top_k=adversarial.top_k,
        ema_decay=adversarial.ema_decay,
        attack=robust.attack,
        label_at=robust.label_at or "moved",
        alpha=params.attack.alpha,
        gradient=robust.gradient or adversarial.gradient,
        policy=adversarial.label,
        live_mode=adversarial.live_mode,
        directions={source: store.manifest.direction.step for source, store in stores.items()},
        random_steps=random_steps(stores),
    )
