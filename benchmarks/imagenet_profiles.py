"""The ImageNet profiles run whole, from prepare to report, on a few photographs: each stage's time and memory.

Weights are random, and so few images are trained on for so short that no error means anything: what is shown is that
every stage runs at its real size, and what it takes. For instance, with four classes of ImageNet's images below
``photographs/train`` and ``photographs/val``:

    python -m benchmarks.imagenet_profiles photographs --profile imagenet --classes 4
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from ruamel.yaml import YAML

_ROOT = Path(__file__).parents[1]
_SECONDS = 0.2


@dataclass
class StageUsage:
    """Usage of a stage: wall and processor seconds, and the most memory of it and its workers together, in bytes."""

    begun: float
    seconds: float = 0.0
    processor: float = 0.0
    peak: int = 0


@click.command()
@click.argument("photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--profile", "name", type=click.Choice(["imagenet", "imagenet-eval"]), required=True)
@click.option(
    "--classes", default=4, show_default=True, help="The number of classes: the first synsets of val, by name."
)
@click.option(
    "--size", default=299, show_default=True, help="The size of images in pixels; Inception v3 needs at least 75."
)
@click.option("--into", type=click.Path(path_type=Path), help="Keep the project in this new folder.")
def main(photographs: Path, name: str, classes: int, size: int, into: Path | None) -> None:
    """Run a profile on some PHOTOGRAPHS by `dvc repro`, and print the time and memory of each stage.

    PHOTOGRAPHS is a folder that contains train/SYNSET and val/SYNSET.
    """
    with tempfile.TemporaryDirectory(prefix="gradshard-profile-") as scratch:
        project = into or Path(scratch) / "project"
        _make_project(project, photographs, name, classes=classes, size=size)
        found = run_measured(project)
    click.echo("| stage | seconds | processor seconds | peak memory, MiB |\n| --- | --- | --- | --- |")
    for stage, its in found.items():
        click.echo(f"| `{stage}` | {its.seconds:.0f} | {its.processor:.0f} | {its.peak / 2**20:.0f} |")


def _make_project(project: Path, photographs: Path, name: str, *, classes: int, size: int) -> None:
    subprocess.run(
        [sys.executable, "-m", "gradshard", "init", str(project), "--profile", name], env=_environment(), check=True
    )
    for split in ("train", "val"):
        for synset in sorted((photographs / "val").iterdir())[:classes]:
            link = project / "photographs" / split / synset.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((photographs / split / synset.name).resolve(), target_is_directory=True)
    yaml = YAML()
    path = project / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    shrink(params, size=size)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def shrink(params: dict[str, Any], *, size: int) -> None:
    """Let a profile run on a few photographs in project/photographs: random weights, one epoch, few images attacked."""
    params["dataset"].update(path="photographs", size=size)
    for model in params["static"].values():
        model["weights"] = "random"
    for model in params["robust"].values():
        model["epochs"] = 1
    params["training"].update(batch=2)
    # Of few batches each has another source: the model itself, then a store.
    params["adversarial"].update(schedule="rotate")
    params["evaluation"].update(sample=2, sweep=[0, "16/256", 1])
    params["analysis"].update(examples=2)
    # One point is 3,362 passes.
    params["analysis"]["plane"] = None


def run_measured(project: Path) -> dict[str, StageUsage]:
    """Run `dvc repro` in a project, and measure every command of gradshard that it starts, by what that is called.

    Raises:
        CalledProcessError: a stage failed.
    """
    process = psutil.Popen([sys.executable, "-m", "dvc", "repro"], cwd=project, env=_environment())
    found: dict[str, StageUsage] = {}
    while process.poll() is None:
        for stage, members in _stages(process):
            its = found.setdefault(stage, StageUsage(begun=time.monotonic()))
            its.seconds = time.monotonic() - its.begun
            its.processor = max(its.processor, sum(_seconds(member) for member in members))
            its.peak = max(its.peak, sum(_resident(member) for member in members))
        time.sleep(_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "dvc repro")
    return found


def _stages(process: psutil.Process) -> Iterator[tuple[str, list[psutil.Process]]]:
    """Find the commands that run, each with the processes that it started."""
    for child in _family(process):
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        if command[1:3] == ["-m", "gradshard"]:
            yield " ".join(command[3:]), [child, *_family(child)]


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _environment() -> dict[str, str]:
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": places, "PYTHONPATH": str(_ROOT), "DVC_NO_ANALYTICS": "1"}


if __name__ == "__main__":
    main()
