"""A training run that can be killed and resumed: checkpoints, snapshots, curves, and the final outputs."""

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from gradshard import storage
from gradshard.pipeline.config.optimization import TrainingParams
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.models import AuxiliaryHead
from gradshard.pipeline.models.precision import choose_compilation, choose_precision
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.held_back import HeldBackErrors, best
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import Trainer
from gradshard.pipeline.types import BEST
from gradshard.stages.console.progress import echo, echo_waiting, progress
from gradshard.stages.machines.devices import rows_at_once
from gradshard.stages.project import paths
from gradshard.stages.project.code import code_digest
from gradshard.stages.training.curves import Curves
from gradshard.stages.training.metrics import metrics
from gradshard.stages.training.prior_checkpoints import PriorCheckpoints
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.atomic import copy, replace_folder, write_text
from gradshard.storage.streaming.reader import Reader, ReadingPlan
from gradshard.storage.streaming.shuffle import Rows
from gradshard.storage.workspace import ROOT, root_for, workspace

_CHECKPOINT_SECONDS = 120.0


class Judge(Protocol):
    """Interface of a judge, which measures a model on held-back rows."""

    def __call__(self, model: nn.Module, epoch: int, *, last: bool) -> HeldBackErrors | None:
        """Return the model's error rates after an epoch; none if they are not measured after that one."""
        ...


@dataclass(frozen=True)
class TrainingJob:
    """Inputs and outputs of one training run.

    ``classes`` is the number of classes; ``record`` is the weights file's description of the model; ``recipe`` is
    everything that the weights depend on. A snapshot is written after each epoch in ``snapshots``, and after the epoch
    that ``judge`` finds best.
    """

    name: str
    stage: str
    weights: Path
    classes: int
    record: Mapping[str, object]
    recipe: Mapping[str, object]
    snapshots: tuple[int, ...] | None = None
    judge: Judge | None = None


def make_run(
    params: Params,
    rows: int,
    ranks: Rank,
    reading: ReadingPlan,
    *,
    epochs: int,
    seed: int,
    learning_rate: float,
    adversary: Adversary | None = None,
    held_back: Rows | None = None,
    sample_shape: tuple[int, ...] = (),
    replays: int = 1,
) -> TrainingRun:
    """Return the training run that the parameters ask for, over ``rows`` rows without those held back.

    Raises:
        GradshardError: a batch has fewer rows than there are ranks.
    """
    training = params.training
    rows -= 0 if held_back is None else len(held_back)
    ranks.check(rows, training.batch)
    if ranks.first and reading.held is not None and reading.window > ranks.size * reading.held:
        echo(
            f"a window of {reading.window * reading.chunk} rows is more than {ranks.size} x streaming.memory holds, so "
            "chunks are read again and again: raise streaming.memory, or take more ranks or a smaller streaming.window"
        )
    return TrainingRun(
        rows=rows,
        batch=training.batch,
        epochs=epochs,
        seed=seed,
        optimization=_optimization(training, learning_rate),
        reading=reading,
        adversary=adversary,
        augmentation=Augmentation(training.augment.padding, training.augment.flip),
        batch_norm=training.batch_norm,
        smoothing=training.label_smoothing,
        average=training.average,
        ranks=ranks,
        held_back=held_back,
        sample_shape=sample_shape,
        replays=replays,
    )


def _optimization(training: TrainingParams, learning_rate: float) -> Optimization:
    return Optimization(
        training.optimizer,
        learning_rate,
        training.decay,
        training.decay_epochs,
        schedule=training.learning_rate_schedule,
        milestones=tuple(training.milestones),
        momentum=training.momentum,
        nesterov=training.nesterov,
        square_decay=training.rmsprop_decay,
        epsilon=training.rmsprop_epsilon,
        weight_decay=training.weight_decay,
        clip_norm=training.clip_norm,
    )


def make_trainer(
    params: Params, module: nn.Module, run: TrainingRun, device: torch.device, auxiliary: AuxiliaryHead | None
) -> Trainer:
    """Return the trainer of a run, with the arithmetic and the compilation that the parameters ask for."""
    # The auxiliary classifier takes the features by a hook, which a compiled model may skip.
    compilation = params.training.compilation if auxiliary is None else "off"
    return Trainer(
        module,
        run,
        device=device,
        arithmetic=choose_precision(params.training.precision, device),
        compiled=choose_compilation(compilation, device, steps=run.steps),
        rows_at_once=rows_at_once(),
        auxiliary=auxiliary,
    )


def versions() -> dict[str, str]:
    """Return the versions that every run's bytes depend on."""
    return {"gradshard": storage.__version__, "torch": torch.__version__}


def training_recipe(params: Params, reading: ReadingPlan, device: torch.device) -> dict[str, object]:
    """Return what a run's bytes depend on besides its inputs and its own parameters."""
    precision = choose_precision(params.training.precision, device)
    return {
        **versions(),
        "training": params.training.model_dump() | {"precision": precision},
        "streaming": {"chunk": reading.chunk, "window": reading.window},
    }


def run(job: TrainingJob, trainer: Trainer, reader: Reader) -> None:
    """Train to the end, from the checkpoint of a killed run if there is one, and publish the outputs.

    Of several ranks only the first reads and writes checkpoints and outputs.

    Raises:
        GradshardError: the loss is not a number, or another rank is gone.
    """
    if not trainer.run.ranks.first:
        if _go_on(trainer, True):
            trainer.share_state()
            for _ in trainer.steps(reader):
                pass
        return
    recipe = {**job.recipe, "code": code_digest(job.stage), "device": next(trainer.model.parameters()).device.type}
    root = ROOT if job.snapshots is None else root_for(paths.snapshots(job.name))
    with workspace(f"{job.stage}-{job.name}", recipe, on_wait=echo_waiting(job.weights), root=root) as work:
        if not _go_on(trainer, not (work.waited and _is_published(job))):
            echo(f"{job.weights}: made by the other process")
            return
        priors = PriorCheckpoints(work.folder, trainer)
        curves = _resume(work.folder, trainer)
        priors.restore()
        trainer.share_state()
        _train(job, trainer, reader, work.folder, curves, priors)
        _publish(job, trainer, work.folder, curves)
    live = f", {trainer.live_steps} of {trainer.run.steps} batches live" if trainer.run.adversary else ""
    echo(f"{job.weights}: {trainer.run.epochs} epochs, {curves.last_losses}{live}")
    if not curves.shows_learning(job.classes, classifiers=trainer.classifiers):
        echo(
            f"{job.name} learnt nothing: guessing among {job.classes} classes has a loss of "
            f"{trainer.classifiers * math.log(job.classes):.4f}; lower "
            f"{job.record['kind']}.{job.record['name']}.training.learning_rate, or train it longer"
        )


def _go_on(trainer: Trainer, wanted: bool) -> bool:
    """Tell every rank whether there is anything to train, which the first one knows."""
    return bool(trainer.run.ranks.shared(torch.tensor([wanted], dtype=torch.uint8, device=trainer.device)).item())


def _train(
    job: TrainingJob, trainer: Trainer, reader: Reader, folder: Path, curves: Curves, priors: PriorCheckpoints
) -> None:
    last_saved = time.monotonic()
    total = trainer.run.steps
    with progress(f"{job.stage} {job.name}", total, "steps", done=trainer.step) as advance:
        for step in trainer.steps(reader):
            advance(1)
            if step.record is None:
                continue
            curves.records.append(step.record)
            epoch, within = divmod(step.number, trainer.run.steps_per_epoch)
            if within == 0:
                _echo_epoch(job, epoch, curves, trainer.run)
                if epoch in (job.snapshots or ()):
                    _save_weights(_snapshot(folder, job, epoch), job, trainer, epoch)
                _judge(job, trainer, folder, curves, epoch)
            if within == 0 or time.monotonic() - last_saved > _CHECKPOINT_SECONDS:
                priors.save()
                checkpoints.save(folder / "checkpoint.safetensors", trainer.state(), curves.as_json())
                priors.settle()
                last_saved = time.monotonic()


def _judge(job: TrainingJob, trainer: Trainer, folder: Path, curves: Curves, epoch: int) -> None:
    """Measure the model on the held-back rows if that is due, and save it if it is the best so far."""
    if job.judge is None:
        return
    found = job.judge(trainer.result, epoch, last=epoch == trainer.run.epochs)
    if found is None:
        return
    curves.held_back.append(found)
    if best(curves.held_back) is found:
        _save_weights(_snapshot(folder, job, BEST), job, trainer, epoch)
    errors = ", ".join(f"{name.replace('_', ' ')} {100 * rate:.1f} %" for name, rate in found.rates.items())
    echo(f"{job.stage} {job.name}: epoch {epoch}, on held-back rows {errors}")


def _snapshot(folder: Path, job: TrainingJob, epoch: int | str) -> Path:
    return folder / "snapshots" / f"{job.name}@{epoch}.safetensors"


def _resume(folder: Path, trainer: Trainer) -> Curves:
    checkpoint = folder / "checkpoint.safetensors"
    if not checkpoint.exists():
        return Curves()
    state, record = checkpoints.load(checkpoint)
    trainer.load_state(state)
    echo(f"going on from step {trainer.step} of {trainer.run.steps}")
    return Curves.from_json(record)


def _publish(job: TrainingJob, trainer: Trainer, folder: Path, curves: Curves) -> None:
    write_text(paths.TRAINING / f"{job.name}.tsv", curves.table())
    write_text(paths.TRAINING / f"{job.name}.json", json.dumps(metrics(trainer, curves), indent=1) + "\n")
    if job.snapshots is not None:
        # Copied, not moved: if this run is killed before the weights are in place, the next one publishes all again.
        (folder / "snapshots").mkdir(exist_ok=True)
        # DVC warns of an empty folder, and git and some storage services keep none.
        write_text(folder / "snapshots" / "epochs.json", json.dumps(list(job.snapshots)) + "\n")
        shutil.copytree(folder / "snapshots", folder / "published", dirs_exist_ok=True)
        replace_folder(folder / "published", paths.snapshots(job.name))
    _save_weights(folder / "weights.safetensors", job, trainer, trainer.run.epochs)
    copy(folder / "weights.safetensors", job.weights)


def _is_published(job: TrainingJob) -> bool:
    return job.weights.exists() and checkpoints.load(job.weights)[1].get("recipe") == job.recipe


def _save_weights(path: Path, job: TrainingJob, trainer: Trainer, epoch: int) -> None:
    checkpoints.save(path, trainer.result.state_dict(), {**job.record, "epoch": epoch, "recipe": job.recipe})


def _echo_epoch(job: TrainingJob, epoch: int, curves: Curves, run: TrainingRun) -> None:
    echo(f"{job.stage} {job.name}: epoch {epoch}/{run.epochs}, {curves.last_losses}")
