"""Stages run whole as commands, in projects of their own, with the time and the memory that they took."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from gradshard.storage.formats.dataset import Images, Labels
from gradshard.storage.ingest.sources import RawDataset, mnist5k

_ROOT = Path(__file__).parents[1]
# Run by a small process, because a child's peak is at least what its parent had when it started it.
_MEASURED = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
seconds = time.perf_counter() - start
peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"seconds": seconds, "peak": peak, "failed": done.stderr if done.returncode else None}))
"""


@dataclass(frozen=True)
class Usage:
    """The wall time of a command in seconds, and the most memory that its process ever had, in bytes."""

    seconds: float
    peak: int


def project(folder: Path, *, train: int, test: int, change: Callable[[dict[str, Any]], None]) -> Path:
    """Make a project of digits, over and over where rows are more, with the default profile as ``change`` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (x_train, y_train), (x_test, y_test) = _digits("train", train), _digits("test", test)
    np.savez(folder / "digits.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    yaml = YAML()
    params: dict[str, Any] = yaml.load((_ROOT / "pipeline/config/profiles/mnist5k.yaml").read_text(encoding="utf-8"))
    params["dataset"] = {"name": "npz", "path": "digits.npz", "classes": 10}
    change(params)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    return folder


@functools.cache
def _raw() -> RawDataset:
    return mnist5k()


def _digits(split: str, rows: int) -> tuple[Images, Labels]:
    images, labels = _raw().splits[split]
    chosen = np.arange(rows) % len(labels)
    return images[:][chosen, 0], labels[chosen]


def run(folder: Path, *arguments: str) -> Usage:
    """Run ``gradshard`` in a project.

    Raises:
        RuntimeError: it failed, with what it said, or was killed.
    """
    command = [sys.executable, "-c", _MEASURED, sys.executable, "-m", "gradshard", *arguments]
    places = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} was ended by signal {-done.returncode}")
    found = json.loads(done.stdout)
    if found["failed"] is not None:
        raise RuntimeError(f"{' '.join(arguments)} failed: {found['failed']}")
    return Usage(seconds=found["seconds"], peak=found["peak"])
