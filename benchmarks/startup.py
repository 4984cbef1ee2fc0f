"""Waiting before anything useful happens, as a share of what is bearable: 0.3 s and 3 s.

Whole processes: `gradshard --help`, and two stages that have next to nothing to do, on two digits with model D, of
which each is a shard. Their time is what any run of them costs beside its work: interpreter, imports, parameters,
opening, publishing.

What it does not show: a first run after installing, when Python compiles our files and the system reads torch's from
the disk, about 5 s here; a cluster's workers, each of which starts as slowly as a stage.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.commands import project, run
from benchmarks.ratios import Claim, claim, in_turn

HELP, OVERHEAD = 0.3, 3.0
_ROWS = 2


def measure(*, quick: bool = False) -> list[Claim]:
    """Time processes from start to end."""
    with tempfile.TemporaryDirectory() as name:
        folder = project(Path(name), train=_ROWS, test=_ROWS, change=_few_epochs)
        run(folder, "prepare")
        run(folder, "train-static", "D")
        run(folder, "precompute", "D")
        steps = {
            "help": lambda: run(folder, "--help").seconds,
            "train-static": lambda: _again(folder, "models/static", "train-static", "D"),
            "precompute": lambda: _again(folder, "signs/D.zarr", "precompute", "D"),
        }
        times = in_turn(steps, repeats=1 if quick else 9)
    return [
        claim("time of `gradshard --help`, over 0.3 s", [time / HELP for time in times["help"]], target=1.0),
        claim("time of `train-static` on two digits, over 3 s", _shares(times["train-static"]), target=1.0),
        claim("time of `precompute` of two digits, over 3 s", _shares(times["precompute"]), target=1.0),
    ]


def _shares(times: list[float]) -> list[float]:
    return [time / OVERHEAD for time in times]


def _few_epochs(params: dict[str, Any]) -> None:
    params["static"]["D"]["epochs"] = 1
    params["signs"]["D"] = {"model": "D", "gradient": "exact", "label": "predicted"}


def _again(folder: Path, made: str, *arguments: str) -> float:
    """Run a stage as if for the first time: without what it made before."""
    shutil.rmtree(folder / made)
    return run(folder, *arguments).seconds


if __name__ == "__main__":
    for found in measure():
        print(found.line())
