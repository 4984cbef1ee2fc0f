"""Ten times the rows: ten times the time, the same peak memory; two workers: half the time; opening: no time at all.

Stages are whole commands on 30,000 and 300,000 digits to train and 20,000 and 200,000 to evaluate, with model D, the
cheapest, so that everything beside its passes counts. What the command takes on 20 digits is taken off its times, not
off its peaks; of that, and of the few rows, which take little more, the median of all rounds counts. They may keep
16 MiB of images and signs, which either number exceeds, so that training streams too. Windowed streaming alone reads
60,000 and 600,000 rows of MNIST's size and may hold 32 MB: an epoch to warm up, then ten or one. A peak is the most
memory that the process ever had, interpreter and libraries included. Ten times the rows make larger shards here, until
a shard has 64 MiB: `precompute`, which holds the packed signs of a shard, needs more memory up to there.

Workers are Dask's, one and two processes of one thread each, and compute a store of model A's signs; their start and
the first shard of each are left out. Opening is timed in this process.

What it does not show: rows that are not in the system's cache; several machines; and the resident mode, whose memory
grows with the rows because it holds them all. A store's manifest names all its files, which are as many for either
number of these rows; where there are ten times as many, 1,252 shards of ImageNet-size rows, it takes some milliseconds
more: `opening` holds what that means for a command.
"""

import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import torch
from distributed import Client

from benchmarks.commands import Usage, project, run
from benchmarks.digits import dataset_of_digits
from benchmarks.memory import own_bytes
from benchmarks.ratios import Claim, claim, compare, in_turn, ratios
from benchmarks.rows import SIGNS, mnist_rows, opened, stored
from gradshard.pipeline import models
from gradshard.pipeline.config.signs import SignsParams
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.stages.jobs.models import load_model
from gradshard.stages.jobs.sign_stores import ShardTask, compute_missing, compute_shard, store_spec
from gradshard.stages.machines.dask_cluster import local_cluster
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.streaming.reader import WindowedReader, plan_reading
from gradshard.storage.streaming.windows import Request

ROWS, TIMES = 60_000, 10
TIME, MEMORY, OPENING, WORKERS = 1.1, 1.05, 1.1, 1.8

_MEMORY = 32_000_000
_BATCH = 64
_STAGES = {  # their arguments and what they make
    "prepare": ((), "data/npz.zarr"),
    "train-static": (("D",), "models/static/D.safetensors"),
    "precompute": (("D",), "signs/D.zarr"),
    "train-robust": (("D_adv",), "models/robust/D_adv-10.safetensors"),
    "evaluate": ((), "evaluation"),
}


def measure(*, quick: bool = False) -> list[Claim]:
    """Compare few rows with ten times as many, and one worker with two."""
    return [*_stages(quick=quick), *_streaming(quick=quick), *_workers(quick=quick)]


def _stages(*, quick: bool) -> list[Claim]:
    train, test, repeats = (500, 20, 1) if quick else (30_000, 20_000, 5)
    with tempfile.TemporaryDirectory() as name:
        sizes = {"few": (train, test), "many": (TIMES * train, TIMES * test)}
        if not quick:
            sizes["none"] = (20, 20)
        folders = {
            size: project(Path(name) / size, train=rows, test=tests, change=_small_models)
            for size, (rows, tests) in sizes.items()
        }
        claims = []
        for stage in _STAGES:
            if stage == "evaluate":
                for folder in folders.values():
                    run(folder, "train-static", "H")
            rounds = [{size: _afresh(folder, stage) for size, folder in folders.items()} for _ in range(repeats)]
            claims += _stage_claims(stage, rounds, quick=quick)
    return claims


def _small_models(params: dict[str, Any]) -> None:
    only = {"model": "D", "gradient": "exact", "label": "predicted"}
    params["static"] = {name: {"architecture": "D", "epochs": 1, "seed": 1} for name in ("D", "H")}
    params["signs"] = {"D": only}
    params["robust"] = {"D_adv": {"architecture": "D", "sources": ["D"], "epochs": 1}}
    params["streaming"] = {"memory": "16 MiB"}
    params["evaluation"] |= {"holdout": "H", "targets": ["D", "D_adv"], "attacks": {"fgsm": ["D", "D_adv"]}}
    params["evaluation"] |= {"gradients": ["exact"], "illustrated": [], "diagnosed": []}
    params["analysis"] |= {"models": [], "plane": {"model": "D", "source": "D", "points": 1}}
    params["blackbox"] |= {"targets": [], "forest": None}


def _afresh(folder: Path, stage: str) -> Usage:
    """Run a stage as if for the first time: without what it made before."""
    arguments, made = _STAGES[stage]
    target = folder / made
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    return run(folder, stage, *arguments)


def _stage_claims(stage: str, rounds: list[dict[str, Usage]], *, quick: bool) -> list[Claim]:
    # The rows of a quick run take less than a start varies by: taken off, it would leave nothing, or less.
    start = 0.0 if quick else statistics.median(found["none"].seconds for found in rounds)
    few = statistics.median(found["few"].seconds for found in rounds)
    times = [(found["many"].seconds - start) / (TIMES * (few - start)) for found in rounds]
    peaks = [found["many"].peak / found["few"].peak for found in rounds]
    return [
        claim(
            f"`{stage}` of {TIMES} times the rows over {TIMES} times `{stage}` of the rows: time", times, target=TIME
        ),
        claim(f"`{stage}` of {TIMES} times the rows over `{stage}` of the rows: peak memory", peaks, target=MEMORY),
    ]


def _workers(*, quick: bool) -> list[Claim]:
    rows, repeats = (64, 1) if quick else (8_192, 5)
    with tempfile.TemporaryDirectory() as name:
        task = _signs_task(Path(name), rows)
        # One cluster at a time: processes that wait for work take time from those that have some.
        steps = {name: partial(_computing, task, workers) for name, workers in (("one", 1), ("two", 2))}
        times = in_turn(steps, repeats=repeats)
    title = "rate of `precompute` by two workers of one thread over that by one"
    return [claim(title, ratios(times, "one", "two"), target=WORKERS, at="least")]


def _computing(task: ShardTask, workers: int) -> float:
    with local_cluster(workers, "cpu", 1) as cluster, Client(cluster) as client:
        task.builder.create()
        client.run(compute_shard, task, 0)
        shutil.rmtree(task.builder.folder)
        task.builder.create()
        start = time.perf_counter()
        with redirect_stderr(io.StringIO()):
            compute_missing(task, "A", client)
        took = time.perf_counter() - start
    shutil.rmtree(task.builder.folder)
    return took


def _signs_task(folder: Path, rows: int) -> ShardTask:
    dataset_of_digits(folder / "digits.zarr", rows=rows)
    data = open_dataset(folder / "digits.zarr")
    model = models.create_model("A", data.sample_shape, data.classes, seed=0)
    checkpoints.save(folder / "A.safetensors", model.state_dict(), {"architecture": "A"})
    device = torch.device("cpu")
    wanted = SignsParams(model="A", gradient="exact", label="predicted")
    direction = GradientSpec("exact", "predicted", "fp32")
    loaded = load_model(folder / "A.safetensors", "A", data, device)
    builder = StoreBuilder(folder / "store", store_spec(wanted, loaded, data.train, direction, device))
    return ShardTask(folder / "digits.zarr", folder / "A.safetensors", "cpu", direction, builder)


def _streaming(*, quick: bool) -> list[Claim]:
    rows, repeats = (2_000, 1) if quick else (ROWS, 7)
    with tempfile.TemporaryDirectory() as name:
        few, many = Path(name) / "few", Path(name) / "many"
        for folder, count in ((few, rows), (many, TIMES * rows)):
            folder.mkdir()
            stored(mnist_rows(count), folder)
        memory = min(_MEMORY, rows * 600)
        found = [(_read(few, memory, epochs=TIMES), _read(many, memory, epochs=1)) for _ in range(repeats)]
        return [
            claim(
                f"windowed streaming of {TIMES} times the rows over {TIMES} times streaming the rows: time",
                [more["seconds"] / less["seconds"] for less, more in found],
                target=TIME,
            ),
            claim(
                f"windowed streaming of {TIMES} times the rows over streaming the rows: peak memory",
                [more["peak"] / less["peak"] for less, more in found],
                target=MEMORY,
            ),
            compare(
                f"opening dataset and store of {TIMES} times the rows",
                lambda: opened(many),
                lambda: opened(few),
                target=OPENING,
                repeats=3 if quick else 51,
            ),
        ]


def _read(folder: Path, memory: int, *, epochs: int) -> dict[str, Any]:
    code = f"from benchmarks.scaling import read; read({str(folder)!r}, {memory}, {epochs})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def read(folder: str, memory: int, epochs: int) -> None:
    """Read epochs, and print the seconds that they took and this process's peak memory in bytes."""
    split, store = opened(Path(folder))
    plan = plan_reading(split, {SIGNS: store}, memory=memory)
    if plan.resident:
        raise AssertionError("the rows fit into memory")
    reader = WindowedReader(split, {SIGNS: store}, plan)
    start = 0.0
    for epoch in range(epochs + 1):
        if epoch == 1:
            start = time.perf_counter()
        order = plan.order(len(split), seed=0, epoch=epoch)
        for _ in reader.read(Request(rows, SIGNS) for rows in order.batches(_BATCH)):
            pass
    took = time.perf_counter() - start
    print(json.dumps({"seconds": took, "peak": own_bytes("VmHWM")}))


if __name__ == "__main__":
    for measured in measure():
        print(measured.line())
