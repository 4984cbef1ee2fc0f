"""Stores in a loop of one's own: training on them, reading them, making them, and the first batch of a large one.

A training step is one of a small ResNet on 64 rows of 3x32x32 and as many perturbed ones, one process reading; without
signs the perturbed ones are the images again. `SignLoader` is timed beside the trainer's own reader over whole epochs,
in windows and from memory. `compute_signs` is timed whole: the dataset read twice, digests, checks, gradients, packing,
writing, verifying, publishing. The bare loop takes the same dataset by a DataLoader, computes the same gradients of the
same model on all cores and keeps nothing, in that one of four batch sizes which was fastest on a sixteenth of the rows.
The first batch is that of a `SignLoader` in a process of its own, with the interpreter's start and the imports; then
once more in a process that runs already, where what is left is reading the manifest: two entries a shard.

What it does not show: a GPU, several processes that read, images that have to be decoded.
"""

import functools
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.digits import dataset_of_digits, random_store
from benchmarks.ratios import Claim, Step, claim, compare, ratios, seconds
from gradshard import SignedDataset, SignLoader, compute_signs, input_gradient, perturb
from gradshard.pipeline import models
from gradshard.pipeline.models import tramer
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.data import make_batch, read
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.types import SELF
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.streaming.reader import open_reader, plan_reading

BATCH = 64
EPSILON = 0.3
STEPS = 4
SHARDS = (10, 1000)
BARE_BATCHES = (32, 64, 128, 256)

_SHARD_ROWS = 64
_COLOUR = (3, 32, 32)
# Bytes of two windows of 256 rows, for either store: fewer rows than the small one has.
_WINDOWED = 2 * 256 * (3 * 32 * 32 + 2 * 384)
_CPU = torch.device("cpu")


def measure(*, quick: bool = False) -> list[Claim]:
    """Time each beside what it is measured by, in a folder of its own."""
    claims = []
    for part in (_training, _reading, _making, _opening):
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            claims += part(quick=quick)
    return claims


def _training(*, quick: bool) -> list[Claim]:
    count = 128 if quick else 2048
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, *_COLOUR), dtype=np.uint8))
    base = TensorDataset(images.float() / 255, torch.arange(count) % 10)
    frozen = models.create_model("small_resnet", _COLOUR, 10, seed=1).eval()
    signed = SignedDataset(base, compute_signs(frozen, base, "signs.zarr"))
    return [
        compare(
            "a step on `SignedDataset` over one on its images alone",
            _trained(DataLoader(signed, batch_size=BATCH, shuffle=True), signed),
            _trained(DataLoader(base, batch_size=BATCH, shuffle=True), None),
            target=1.05,
            repeats=1 if quick else 25,
        )
    ]


def _trained(loader: DataLoader[Any], signed: SignedDataset | None) -> Step:
    model = models.create_model("small_resnet", _COLOUR, 10, seed=0).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = _endless(loader)

    def step() -> None:
        images, labels, *signs = next(batches)
        other = images if signed is None else perturb(images, signed.unpack(signs[0], images), EPSILON)
        loss = functional.cross_entropy(model(torch.cat([images, other])), labels.repeat(2))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return functools.partial(_repeated, step)


def _repeated(step: Callable[[], None]) -> None:
    for _ in range(STEPS):
        step()


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _reading(*, quick: bool) -> list[Claim]:
    split = dataset_of_digits(Path("digits.zarr"), rows=512 if quick else 60_000)
    stores = {name: random_store(split, Path(), name=name, seed=seed) for seed, name in enumerate(("A", "C"))}
    claims = []
    for kind, memory in (("in windows", 1 << 18 if quick else 1 << 24), ("from memory", 1 << 30)):
        loader = SignLoader(split, stores, batch=BATCH, epsilon=EPSILON, memory=memory)
        epochs: dict[str, Step] = {
            "loader": functools.partial(_epoch, loader),
            "trainer": _trainers(split, stores, memory),
        }
        times = seconds(epochs, repeats=1 if quick else 15)
        name = f"rate of `SignLoader` {kind} over that of the trainer's reader"
        claims.append(claim(name, ratios(times, "trainer", "loader"), target=0.98, at="least"))
    return claims


def _epoch(loader: SignLoader) -> None:
    for batch in loader:
        _ = batch.images


def _trainers(split: Split, stores: Mapping[str, SignStore], memory: int) -> Step:
    """Return an epoch of the batches that the trainer reads and makes."""
    run = TrainingRun(
        rows=len(split),
        batch=BATCH,
        epochs=10_000,
        seed=0,
        optimization=Optimization("adam", 1e-3),
        reading=plan_reading(split, stores, memory=memory),
        adversary=Adversary(
            attack="fgsm",
            epsilon=EPSILON,
            alpha=0.0,
            clean_weight=0.5,
            sources=(SELF, *stores),
            schedule="random",
            gradient="exact",
            policy="predicted",
            live_mode="train",
            directions=dict.fromkeys(stores, 1),
        ),
    )
    numbered = enumerate(read(open_reader(split, stores, run.reading), run.requests(0), _CPU))

    def epoch() -> None:
        for step, raw in itertools.islice(numbered, run.steps_per_epoch):
            _ = make_batch(raw, run, step).images

    return epoch


def _making(*, quick: bool) -> list[Claim]:
    pixels, labels = dataset_of_digits(Path("digits.zarr"), rows=256 if quick else 8192).load()
    base = TensorDataset(torch.from_numpy(pixels).float() / 255, torch.from_numpy(labels))
    model = tramer.build("A", (1, 28, 28), 10, seed=0).eval().requires_grad_(False)
    few = TensorDataset(*base[: len(base) // 16])
    tried = {str(size): _bare(model, few, size) for size in BARE_BATCHES}
    fastest = seconds(tried, repeats=1 if quick else 3)
    batch = min(BARE_BATCHES, key=lambda size: sum(fastest[str(size)]))

    def store() -> None:
        compute_signs(model, base, "signs/A.zarr")
        shutil.rmtree("signs")
        shutil.rmtree(".partial")

    times = seconds({"store": store, "bare": _bare(model, base, batch)}, repeats=1 if quick else 7)
    name = "rate of `compute_signs` over that of a bare loop"
    return [claim(name, ratios(times, "bare", "store"), target=0.95, at="least")]


def _bare(model: nn.Module, base: TensorDataset, batch: int) -> Step:
    def step() -> None:
        for images, _ in DataLoader(base, batch_size=batch):
            input_gradient(model, images, None, policy="predicted")

    return step


_FIRST = """
import sys
from gradshard import SignLoader
next(iter(SignLoader(sys.argv[1], {"A": sys.argv[2]}, batch=64, epsilon=0.3, memory=int(sys.argv[3]))))
"""


def _opening(*, quick: bool) -> list[Claim]:
    few, many = (_sharded(Path(str(shards)), shards) for shards in (SHARDS[0], 20 if quick else SHARDS[1]))

    def alone(folder: Path) -> None:
        command = [sys.executable, "-c", _FIRST, str(folder / "data.zarr"), str(folder / "A.zarr"), str(_WINDOWED)]
        subprocess.run(command, check=True)

    def here(folder: Path) -> Tensor:
        split = open_dataset(folder / "data.zarr").train
        loader = SignLoader(split, {"A": folder / "A.zarr"}, batch=BATCH, epsilon=EPSILON, memory=_WINDOWED)
        return next(iter(loader)).images

    name = "the first batch of a store of 1,000 shards over one of 10"
    processes = compare(name, lambda: alone(many), lambda: alone(few), target=1.1, repeats=1 if quick else 7)
    times = seconds({"many": lambda: here(many), "few": lambda: here(few)}, repeats=1 if quick else 25)
    return [processes, claim(f"{name}, in a process that runs already", ratios(times, "many", "few"))]


def _sharded(folder: Path, shards: int) -> Path:
    """Return a dataset of noise and a store of random signs, in so many shards."""
    rows, draws = shards * _SHARD_ROWS, np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (rows, *_COLOUR), dtype=np.uint8), np.arange(rows) % 10
    for _ in write_dataset(
        folder / "data.zarr",
        name="noise",
        classes=10,
        splits={"train": (images, labels), "test": (images[:2], labels[:2])},
    ):
        pass
    split = open_dataset(folder / "data.zarr").train
    random_store(split, folder, name="A", shard=_SHARD_ROWS)
    return folder


if __name__ == "__main__":
    for found in measure():
        print(found.line())
