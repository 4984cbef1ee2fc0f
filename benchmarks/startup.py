"""What a person waits for before anything useful happens, as a share of what is bearable: 0.3 s and 3 s.

Whole processes: `gradshard --help`, and two stages that have next to nothing to do, on 20 digits with model D. Their
time is what any run of them costs beside its work: interpreter, imports, parameters, opening, publishing.

What it does not show: a first run after installing, when Python compiles our files and the system reads torch's from
the disk, about 5 s here; a cluster's workers, each of which starts as slowly as a stage.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from benchmarks.ratios import Claim, Step, claim, seconds
from storage.datasets.ingest import mnist5k

HELP, OVERHEAD = 0.3, 3.0
_ROOT = Path(__file__).parents[1]
_ROWS = 20


def measure(*, quick: bool = False) -> list[Claim]:
    """Time processes from start to end."""
    with tempfile.TemporaryDirectory() as name:
        project = _project(Path(name))
        _run(project, "prepare")
        _run(project, "train-static", "D")
        _run(project, "precompute", "D")
        steps: dict[str, Step] = {
            "help": lambda: _run(project, "--help"),
            "train-static": lambda: _again(project, "models/static", "train-static", "D"),
            "precompute": lambda: _again(project, "signs/D.zarr", "precompute", "D"),
        }
        times = seconds(steps, repeats=1 if quick else 9)
    return [
        claim("time of `gradshard --help`, over 0.3 s", [time / HELP for time in times["help"]], target=1.0),
        claim("time of `train-static` on 20 digits, over 3 s", _shares(times["train-static"]), target=1.0),
        claim("time of `precompute` of 20 digits, over 3 s", _shares(times["precompute"]), target=1.0),
    ]


def _shares(times: list[float]) -> list[float]:
    return [time / OVERHEAD for time in times]


def _project(folder: Path) -> Path:
    """A project of 20 training digits and models of one epoch."""
    yaml = YAML()
    params: dict[str, Any] = yaml.load((_ROOT / "pipeline/profiles/mnist5k.yaml").read_text(encoding="utf-8"))
    splits = mnist5k().splits
    (train, classes), (test, others) = splits["train"], splits["test"]
    few = slice(_ROWS)
    np.savez(folder / "digits.npz", x_train=train[few], y_train=classes[few], x_test=test[few], y_test=others[few])
    params["dataset"] = {"name": "npz", "path": "digits.npz"}
    params["static"]["D"]["epochs"] = 1
    params["signs"]["D"] = {"model": "D", "gradient": "exact", "label": "predicted"}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    return folder


def _again(project: Path, made: str, *arguments: str) -> None:
    """Run a stage as if for the first time: without what it made before."""
    shutil.rmtree(project / made)
    _run(project, *arguments)


def _run(project: Path, *arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    subprocess.run(
        [sys.executable, "-m", "stages", *arguments], cwd=project, env=environment, check=True, capture_output=True
    )


if __name__ == "__main__":
    for found in measure():
        print(found.line())
