"""The command ``examine``: attacks and flags of anybody's model, in one page; no pipeline and no training."""

import functools
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import torch

from gradshard import storage
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
from gradshard.stages.support.dask_cluster import dask_client, map_tasks
from gradshard.stages.support.examined import (
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
from gradshard.stages.support.model_checks import tell_gradients
from gradshard.stages.support.options import ClusterConfig, cluster_options
from gradshard.stages.support.places import PathType
from gradshard.stages.support.progress import echo, echo_waiting, progress
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.workspace import workspace

_QUICK_IMAGES, _QUICK_STEPS, _STEPS, _IFGSM_STEPS = 1000, 20, 40, 10
# What papers use for digits and for photographs.
_EPSILON_GREY, _EPSILON_COLOUR = 0.3, 8 / 255


def _epsilon(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    del context, option
    if text is None:
        return None
    try:
        value = float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError) as error:
        raise click.UsageError(f"--eps must be a number such as 0.3 or 8/255, but is {text}") from error
    if not 0 < value <= 1:
        raise click.UsageError(f"--eps must be above 0 and at most 1 (pixels lie in [0, 1]), but is {text}")
    return value


def _sources(context: click.Context, option: click.Parameter, given: Sequence[str]) -> list[ExaminedModel]:
    del context, option
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


@click.command()
@click.argument("model")
@click.option("--weights", help="Its checkpoint; or `pretrained` for timm:NAME. Without: as your own factory makes it.")
@click.option("--dataset", required=True, type=PathType(path_type=Path), help="A prepared .zarr, or an .npz archive.")
@click.option(
    "--against",
    "sources",
    multiple=True,
    callback=_sources,
    metavar="SOURCE",
    help="A model whose examples are transferred, NAME=ARCHITECTURE:WEIGHTS or a weights file of gradshard; may be "
    "given several times.",
)
@click.option("--eps", callback=_epsilon, help="How far a pixel may move; default: 0.3, of colour images 8/255.")
@click.option(
    "--gradient",
    type=click.Choice(["exact", "cross_entropy"]),
    default="exact",
    show_default=True,
    help="Of which loss; cross-entropy rounds to 0 on confident examples.",
)
@click.option("--quick", is_flag=True, help="1,000 images and the four quickest attacks.")
@click.option("--images", "wanted", type=click.IntRange(min=1), help="So many test images, drawn at random.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of everything random.")
@click.option(
    "--output",
    type=click.Choice(["logits", "probabilities"]),
    default="logits",
    show_default=True,
    help="What the model gives; of probabilities the logarithm is taken.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option(
    "--into",
    type=PathType(file_okay=False, path_type=Path),
    default=Path("examination"),
    show_default=True,
    help="The folder to write.",
)
@cluster_options
def command(
    model: str,
    weights: str | None,
    dataset: Path,
    sources: list[ExaminedModel],
    eps: float | None,
    gradient: Gradient,
    quick: bool,
    wanted: int | None,
    seed: int,
    output: Output,
    device: DeviceName,
    into: Path,
    cluster: ClusterConfig,
) -> None:
    """Attack a model that anybody trained, and tell whether its gradient can be trusted.

    MODEL is an architecture: A to D, timm:NAME, or your own package.module:factory; or a weights file that gradshard
    wrote. Needs no params.yaml and trains nothing. Writes index.html and examination.json: the error on clean and
    randomly perturbed images, under every attack by the model's own gradient and transferred from the sources,
    AutoAttack where it is installed, the worst case by example, the error over epsilon, and the flags of a masked
    gradient. Exit code 1 if a flag is raised. Killed and started again, the same command goes on where it was.
    """
    recorded = weights is None and _is_file(model)
    examined = recorded_model(SELF, Path(model)) if recorded else ExaminedModel(SELF, model, weights or RANDOM, output)
    check_weights_named(examined)
    images, used = open_images(dataset), choose_device(device)
    epsilon = eps or (_EPSILON_GREY if images.sample_shape[0] == 1 else _EPSILON_COLOUR)
    everybody = (examined, *sources)
    digests = tuple(_checked(some, images, used) for some in everybody)
    plan, left_out = _plan(images, [source.name for source in sources], epsilon, gradient, seed=seed, quick=quick)
    rows = chosen_rows(len(images.labels), wanted or (_QUICK_IMAGES if quick else None), seed=seed)
    about = {
        "model": provenance(examined, digests[0]),
        "dataset": {"name": images.name, "digest": images.digest, "rows": len(rows), "of": len(images.labels)},
        "sources": {some.name: provenance(some, of) for some, of in zip(everybody[1:], digests[1:], strict=True)},
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
        "left_out": left_out,
    }
    places = tuple(_absolute(some) for some in everybody)
    subjects = Subjects(dataset.resolve(), images.digest, places, digests, used.type)
    found = _examined(subjects, plan, rows, about, cluster)
    write_text(into / "examination.json", json.dumps(report.record(found) | about, indent=1) + "\n")
    write_text(into / "index.html", report.page(found, about))
    _tell(found, into)
    if found.masked:
        click.get_current_context().exit(1)


def _checked(model: ExaminedModel, images: LabelledImages, device: torch.device) -> str:
    """Check a model before anything long, and give its digest."""
    module, digest = open_model(model, images, device)
    gradients = check_model(model, module, images, device)
    tell_gradients(gradients, model.architecture if model.name == SELF else model.name)
    return digest


def _absolute(model: ExaminedModel) -> ExaminedModel:
    """Name weights so that a worker elsewhere on this machine finds them."""
    if model.weights in (RANDOM, PRETRAINED):
        return model
    return ExaminedModel(model.name, model.architecture, str(Path(model.weights).expanduser().resolve()), model.output)


def _plan(
    images: LabelledImages, sources: Sequence[str], epsilon: float, gradient: Gradient, *, seed: int, quick: bool
) -> tuple[ExaminationPlan, list[str]]:
    """Return what is measured, and what is left out."""
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
    plan = ExaminationPlan(strength, tuple(attacks), transferred, tuple(sources), gradient, seed)
    return plan, left_out


def _examined(
    subjects: Subjects, plan: ExaminationPlan, rows: Rows, about: dict[str, Any], cluster: ClusterConfig
) -> Examination:
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
        return conclude(plan, found)


def _examine(subjects: Subjects, plan: ExaminationPlan, parts: Sequence[Rows], folder: Path, block: int) -> None:
    if _file(folder, block).exists():  # when a worker dies, Dask asks again for the results that it held
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
    verdict = f"{len(found.flags)} flags" if found.masked else "no flag"
    echo(f"{into / 'index.html'}: {verdict}, clean error {clean:.1f} %, worst case {worst:.1f} %")
