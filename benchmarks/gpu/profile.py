"""The paper's MNIST experiment whole, by the stages of dvc.yaml without DVC, each timed; it goes on where it stopped.

A stage that ran is noted in the project and not run again; one that was killed goes on from its checkpoint.
"""

import itertools
import json
import os
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.commands import project, run
from benchmarks.gpu.part import Findings, findings, part_options
from gradshard.pipeline.config.profiles import profiles
from gradshard.stages.project.code import DVC_FILE
from gradshard.storage.formats.atomic import write_text

KEPT = ("params.yaml", "analysis", "blackbox", "evaluation", "report", "training")
NOTES = "stages.json"

_PREFIX = "python -m gradshard "


@click.command()
@part_options
@click.option("--project", "folder", type=click.Path(path_type=Path), required=True, help="Where it is, or will be.")
@click.option("--mnist", type=click.Path(exists=True, file_okay=False, path_type=Path), help="MNIST's four files.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Runs of a stage at once.")
def main(result: Path, device: str, small: bool, folder: Path, mnist: Path | None, jobs: int) -> None:
    """Run all stages, and put what they found in an archive beside RESULT."""
    # The time that this run took is noted, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with findings(result, device, small=small) as found:
        if not (folder / "params.yaml").exists():
            _make_project(folder, mnist, device, small=small)
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))
        _run_all(folder, found, jobs)
        _archive(folder, result.with_suffix(".tar.gz"))


def stage_commands(params: Mapping[str, Any]) -> list[list[str]]:
    """Return what dvc.yaml runs for some parameters, in its order: for each stage the arguments of gradshard."""
    stages = YAML(typ="safe").load(DVC_FILE.read_text(encoding="utf-8"))["stages"]
    return [list(_commands(stage, params)) for stage in stages.values()]


def _commands(stage: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the commands of a stage: of one with ``foreach`` or ``matrix`` as many as there are combinations."""
    over = stage.get("matrix", {"key": stage["foreach"]} if "foreach" in stage else {})
    lists = [list(params[values.removeprefix("${").removesuffix("}")]) for values in over.values()]
    for values in itertools.product(*lists):
        command: str = stage.get("do", stage)["cmd"]
        for name, value in zip(over, map(str, values), strict=True):
            command = command.replace(f"${{{name}}}", value).replace(f"${{item.{name}}}", value)
        yield command.removeprefix(_PREFIX)


def _make_project(folder: Path, mnist: Path | None, device: str, *, small: bool) -> None:
    if small:
        project(folder, train=320, test=100, change=lambda params: _shrink(params, device))
        return
    if mnist is None:
        raise click.UsageError("the whole profile needs --mnist, a folder with MNIST's four files")
    yaml = YAML()
    params = yaml.load(profiles()["mnist"])
    params["device"] = device
    params["dataset"]["path"] = str(mnist.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def _shrink(params: dict[str, Any], device: str) -> None:
    """Let one model of each kind be trained for an epoch, and little be attacked."""
    params["device"] = device
    params["static"] = {name: {"architecture": "D", "epochs": 1, "seed": 1} for name in ("A", "B")}
    params["signs"] = {"A": {"model": "A", "gradient": "exact", "label": "predicted"}}
    params["robust"] = {"A_adv-ens": {"architecture": "D", "sources": ["A"], "epochs": 2, "snapshots": [1]}}
    targets = ["A", "A_adv-ens", "A_adv-ens@1"]
    params["evaluation"].update(targets=targets, illustrated=["A"], diagnosed=["A_adv-ens"], sweep=[0, 0.3])
    params["evaluation"]["attacks"] = {"fgsm": ["B", *targets], "pgd": ["A_adv-ens"]}
    params["attack"].update(pgd_steps=2, steps=2)
    params["analysis"].update(models=targets, examples=5, plane=None)
    params["blackbox"].update(targets=["A"], examples=20, forest=None)
    params["blackbox"]["estimation"].update(examples=2)
    params["blackbox"]["substitute"].update(images=20, rounds=1, epochs=1, sweep=[])


def _run_all(folder: Path, found: Findings, jobs: int) -> None:
    """Run what has not run, the runs of one stage at once; and note of each its seconds, and of this call too."""
    notes = folder / NOTES
    record = json.loads(notes.read_text()) if notes.exists() else {"calls": [], "stages": {}}
    begun, calls = time.monotonic(), record["calls"]
    calls.append(0.0)

    def note() -> None:
        calls[-1] = time.monotonic() - begun
        write_text(notes, json.dumps(record, indent=1) + "\n")

    # Where all runs are killed, the next ones must not take their places.
    one_ended = threading.Event()

    def run_once(command: str) -> tuple[str, dict[str, Any]] | None:
        if one_ended.is_set():
            return None
        try:
            return command, asdict(run(folder, *command.split()))
        except RuntimeError:
            one_ended.set()
            raise

    pool = ThreadPoolExecutor(jobs)
    try:
        for command, usage in record["stages"].items():
            found.add(command, usage["seconds"], "s")
        for commands in stage_commands(YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8"))):
            waiting = [command for command in commands if command not in record["stages"]]
            for done in as_completed([pool.submit(run_once, command) for command in waiting]):
                if (result := done.result()) is None:
                    continue
                command, record["stages"][command] = result
                note()
                found.add(command, record["stages"][command]["seconds"], "s")
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    finally:
        note()
        pool.shutdown(cancel_futures=True)
    found.add("calls", len(calls), "until all was done")
    found.add("all stages", sum(calls), "s")


def _archive(folder: Path, path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in KEPT:
            archive.add(folder / name, name)


if __name__ == "__main__":
    main()
