"""An examination of anybody's model, its page and its JSON file, for the command ``examine``."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from gradshard import storage
from gradshard.pipeline.attacks import custom
from gradshard.pipeline.attacks.crafting import check_attacks
from gradshard.pipeline.attacks.registry import ATTACKS, AttackConfig
from gradshard.pipeline.evaluation.examination import (
    QUICK_ATTACKS,
    QUICK_TRANSFERRED,
    TRANSFERRED,
    BlockFindings,
    Examination,
    ExaminationPlan,
    conclude,
    examine_block,
)
from gradshard.pipeline.models.precision import choose_device, precision_context
from gradshard.pipeline.report import examination as report
from gradshard.pipeline.types import CLEAN, PRETRAINED, RANDOM, SELF, DeviceName, Gradient, Output
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.console.progress import echo, echo_waiting, progress
from gradshard.stages.jobs.examined import (
    ExaminedModel,
    LabelledImages,
    Rows,
    Subjects,
    blocks,
    check_model,
    check_weights_named,
    chosen_rows,
    open_images,
    open_model,
    provenance,
    recorded_model,
)
from gradshard.stages.jobs.model_checks import tell_gradients
from gradshard.stages.machines.dask_cluster import dask_client, map_tasks
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.workspace import workspace

_QUICK_IMAGES, _QUICK_STEPS, _STEPS, _IFGSM_STEPS = 1000, 20, 40, 10
# The values that papers use for digits and for photographs.
_EPSILON_GREY, _EPSILON_COLOUR = 0.3, 8 / 255


def named_model(model: str, weights: str | None, output: Output) -> ExaminedModel:
    """Find the model to examine: a weights file of gradshard, or an architecture with the given weights.

    Raises:
        GradshardError: the weights are not named.
    """
    recorded = weights is None and _is_file(model)
    examined = recorded_model(SELF, Path(model)) if recorded else ExaminedModel(SELF, model, weights or RANDOM, output)
    check_weights_named(examined)
    return examined


def named_sources(given: Sequence[str]) -> list[ExaminedModel]:
    """Find the models that ``--against`` names.

    Raises:
        click.UsageError: one has no known form, or two have the same name.
    """
    found = [_source(text) for text in given]
    names = [source.name for source in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise click.UsageError(f"two sources of --against are named {twice[0]}: give each a name of its own")
    return found


def _source(text: str) -> ExaminedModel:
    if _is_file(text):
        return recorded_model(Path(text).stem, Path(text))
    name, _, model = text.partition("=")
    architecture, _, weights = model.rpartition(":")
    if not (name and architecture and weights) or name == SELF:
        raise click.UsageError(
            "--against must be a weights file of gradshard or NAME=ARCHITECTURE:WEIGHTS, such as "
            f"B=timm:resnet18:weights/B.pth, but is {text}"
        )
    return ExaminedModel(name, architecture, weights)


def _is_file(text: str) -> bool:
    return text.endswith(".safetensors") and "=" not in text and Path(text).is_file()


def examine(
    examined: ExaminedModel,
    sources: Sequence[ExaminedModel],
    dataset: Path,
    into: Path,
    *,
    epsilon: float | None,
    gradient: Gradient,
    quick: bool,
    others: Sequence[str],
    wanted: int | None,
    seed: int,
    device: DeviceName,
    cluster: ClusterConfig,
) -> bool:
    """Attack a model, write index.html and examination.json into a folder, and return whether a flag is raised.

    A killed run is resumed.

    Args:
        examined: the model.
        sources: models whose examples are transferred to it.
        dataset: a prepared dataset, or an archive of arrays.
        into: the folder.
        epsilon: how far a pixel may move; by default what papers use for digits or for photographs.
        gradient: the loss whose gradient attacks follow.
        quick: whether to run the quickest attacks alone, by default on 1,000 images.
        others: further attacks by the model's own gradient, from libraries or the user.
        wanted: how many test images to draw at random; by default all, or 1,000 with ``quick``.
        seed: of everything random.
        device: where to compute.
        cluster: how many processes compute.

    Raises:
        GradshardError: the model, a source or the images cannot be examined; the message says why.
    """
    images, used = open_images(dataset), choose_device(device)
    epsilon = epsilon or (_EPSILON_GREY if images.sample_shape[0] == 1 else _EPSILON_COLOUR)
    everybody = (examined, *sources)
    digests = tuple(_checked(some, images, used) for some in everybody)
    names = [source.name for source in sources]
    plan, left_out = _plan(images, names, epsilon, gradient, seed=seed, quick=quick, others=others)
    rows = chosen_rows(len(images.labels), wanted or (_QUICK_IMAGES if quick else None), seed=seed)
    about = {
        "model": provenance(examined, digests[0]),
        "dataset": {"name": images.name, "digest": images.digest, "rows": len(rows), "of": len(images.labels)},
        "sources": {some.name: provenance(some, of) for some, of in zip(everybody[1:], digests[1:], strict=True)},
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
        "left_out": left_out,
    }
    if plan.foreign:
        about["attacks"] = {name: custom.provenance(name="attack", call=name) for name in plan.foreign}
    places = tuple(_absolute(some) for some in everybody)
    subjects = Subjects(dataset.resolve(), images.digest, places, digests, used.type)
    _make_folder(into)
    if examined.weights == RANDOM:
        echo(f"{examined.architecture}: examined with the weights that its factory sets, because --weights names none")
    found = _examined(subjects, plan, rows, about, cluster, into)
    _tell(found, into)
    return found.masked


def _make_folder(into: Path) -> None:
    """Make the folder before any work.

    Raises:
        GradshardError: a file is in its way.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise GradshardError(f"{into} cannot be a folder: a file is in its way, so name another by --into") from error


def _checked(model: ExaminedModel, images: LabelledImages, device: torch.device) -> str:
    """Check a model before any long work, and return its digest."""
    module, digest = open_model(model, images, device)
    gradients = check_model(model, module, images, device)
    tell_gradients(gradients, model.architecture if model.name == SELF else model.name)
    return digest


def _absolute(model: ExaminedModel) -> ExaminedModel:
    """Return the model with the absolute path of its weights, which a worker in another folder finds."""
    if model.weights in (RANDOM, PRETRAINED):
        return model
    return ExaminedModel(model.name, model.architecture, str(Path(model.weights).expanduser().resolve()), model.output)


def _plan(
    images: LabelledImages,
    sources: Sequence[str],
    epsilon: float,
    gradient: Gradient,
    *,
    seed: int,
    quick: bool,
    others: Sequence[str],
) -> tuple[ExaminationPlan, list[str]]:
    """Return the plan of what is measured, and what is left out of it.

    Raises:
        GradshardError: one of ``others`` cannot be run here.
    """
    attacks, transferred = list(QUICK_ATTACKS if quick else ATTACKS), QUICK_TRANSFERRED if quick else TRANSFERRED
    left_out: list[str] = []
    if quick:
        left_out.append("attacks that take longer, because of --quick")
    else:
        try:
            check_attacks(["autoattack"], classes=images.classes)
        except GradshardError:
            attacks.remove("autoattack")
            left_out.append("AutoAttack, which needs four classes and: pip install 'gradshard[autoattack]'")
    if not sources:
        left_out.append("transferred examples, because no source was given by --against")
    steps = _QUICK_STEPS if quick else _STEPS
    strength = AttackConfig(epsilon, epsilon / 2, _IFGSM_STEPS, pgd_steps=steps, restarts=1)
    every = tuple(dict.fromkeys((*attacks, *others)))
    plan = ExaminationPlan(strength, every, transferred, tuple(sources), gradient, seed)
    check_attacks(others, classes=images.classes, attacks=plan.table)
    return plan, left_out


def _examined(
    subjects: Subjects, plan: ExaminationPlan, rows: Rows, about: dict[str, Any], cluster: ClusterConfig, into: Path
) -> Examination:
    """Measure the missing blocks, and write both files before the workspace with the blocks is removed."""
    parts = blocks(rows)
    recipe = {**about, "plan": repr(plan), "rows": len(rows)}
    with (
        workspace("examine", recipe, on_wait=echo_waiting("this examination")) as work,
        dask_client(cluster, subjects.device) as client,
    ):
        folder = work.folder.resolve()
        missing = [block for block in range(len(parts)) if not _file(folder, block).exists()]
        done = len(rows) - sum(len(parts[block]) for block in missing)
        if done:
            echo(f"going on: {done} of {len(rows)} images are done")
        task = functools.partial(_examine, subjects, plan, parts, folder)
        with progress("examine", len(rows), "images", done=done) as advance:
            for block, _ in map_tasks(client, task, missing, what="block"):
                advance(len(parts[block]))
        files = [_file(folder, block) for block in range(len(parts))]
        found = [BlockFindings.restore(json.loads(file.read_text(encoding="utf-8"))) for file in files]
        examination = conclude(plan, found)
        write_text(into / "examination.json", json.dumps(report.record(examination) | about, indent=1) + "\n")
        write_text(into / "index.html", report.page(examination, about))
        return examination


def _examine(subjects: Subjects, plan: ExaminationPlan, parts: Sequence[Rows], folder: Path, block: int) -> None:
    if _file(folder, block).exists():  # when a worker dies, Dask repeats the tasks whose results it held
        return
    images, models = subjects.open()
    device = torch.device(subjects.device)
    pixels, labels = (part.to(device) for part in images.take(parts[block]))
    with precision_context("fp32", device):
        found = examine_block(models, pixels, labels, plan, block=block)
    write_text(_file(folder, block), json.dumps(found.record()))


def _file(folder: Path, block: int) -> Path:
    return folder / f"{block:06d}.json"


def _tell(found: Examination, into: Path) -> None:
    for flag in found.flags:
        echo(f"{flag.name}: {flag.says} ({flag.figures})")
    clean, worst = (100 * rate.rate for rate in (found.error(CLEAN), found.worst_case))
    echo(f"{into / 'index.html'}: clean error {clean:.1f} %, worst case {worst:.1f} %; {found.verdict}")
