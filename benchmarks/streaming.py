"""Shuffled batches of 64 images, labels and packed signs, beside other people's loaders and readers written by hand.

Rows a second, whole epochs, of 60,000 rows of MNIST's size and 3,000 of 3 x 299 x 299. Two windows of ours take two
thirds of what the small rows take, and half of what the large ones do. Each loader reads in a process of its own, one
epoch to warm up and then as many as take a second: what another has left in the C library's hands changes some rates by
a factor of two. All files are in the system's cache, but for the rows "beyond memory": there the process may allocate
half of what it reads, the files were dropped from the cache, and the first epoch counts. Ours decompresses the signs
and holds every byte against its checksum; no other does. Everything is measured in one run, in turn; a loader counts
that is installed. The best of several is the best of each round. "Level" is a ratio of 0.95: medians of equal things
differ by some hundredths here.

MosaicML Streaming asks for a NumPy older than ours, so it is in no extra: `pip install --no-deps mosaicml-streaming`,
then `pip install brotli catalogue python-snappy transformers zstd`. LitData, WebDataset and Hugging Face datasets come
with the extra `bench`.

A batch taken from a memory map at once, by PyTorch's `__getitems__`, has no target: it copies what is in the system's
cache already, compresses and checks nothing, and reads nothing ahead. It shows what the resident mode is for.

What it does not show: remote stores, more than one reader at a time, a GPU, or what is gained where a loader's rows
also have to be decoded, as JPEG files have.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.loaders import BATCH, MAPPED, READY_MADE, Batch, Epoch, Loader, Place
from benchmarks.memory import own_bytes
from benchmarks.ratios import Claim, Step, claim, in_turn, ratios, seconds
from benchmarks.readers import BY_HAND
from benchmarks.rows import SIGNS, LabelledSigns, imagenet_rows, mnist_rows, opened, stored
from gradshard.pipeline import models
from gradshard.pipeline.models.precision import choose_precision
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.streaming.reader import (
    InMemoryReader,
    RawBatch,
    Reader,
    ReadingPlan,
    WindowedReader,
    plan_reading,
)
from gradshard.storage.streaming.windows import Request

LEVEL, FASTER, GATHER, HIDDEN = 0.95, 2.0, 0.8, 0.01
# What a process may allocate beyond what it has when it begins to read, for rows of twice as many bytes.
BUDGET = 1 << 29
# An epoch of small rows takes some 50 ms, which is too short to be told from the system's own business.
LEAST_SECONDS = 1.0

_OURS = "windowed"
_OTHERS = (*READY_MADE, *BY_HAND, MAPPED)


@dataclass(frozen=True)
class Stored:
    """Rows in the formats of all loaders, in a folder, and the memory that two windows of ours may take.

    They are read for at least some seconds, epoch after epoch.
    """

    name: str
    folder: Path
    memory: int
    seconds: float = 0.0

    @property
    def ours(self) -> Path:
        """Return the places of our dataset and store."""
        return self.folder / "ours"

    @property
    def plan(self) -> ReadingPlan:
        """Return the plan of reading them."""
        split, store = opened(self.ours)
        return plan_reading(split, {SIGNS: store}, memory=self.memory)

    def open(self, name: str) -> Epoch:
        """Return what yields an epoch a call: our windows, or another loader's."""
        split, store = opened(self.ours)
        if name == _OURS:
            return _epochs(WindowedReader(split, {SIGNS: store}, self.plan), self.plan, len(split))
        loader = next(loader for loader in _OTHERS if loader.name == name)
        folder = self.folder / loader.write.__name__
        return loader.open(Place(folder, self.ours, len(split), split.sample_shape, self.plan.chunk, self.plan.window))


def measure(*, quick: bool = False) -> list[Claim]:
    """Compare epochs of ours with those of all others, and the wait for a batch with a training step."""
    repeats = 1 if quick else 5
    ready_made, by_hand = ([loader for loader in kind if loader.installed] for kind in (READY_MADE, BY_HAND))
    missing = [loader.name for loader in READY_MADE + BY_HAND if not loader.installed]
    but = f" but {', '.join(missing)}" if missing else ""
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        rows = mnist_rows(1_200 if quick else 60_000)
        small = _write("MNIST-size rows", rows, Path(folder) / "small", share=2 / 3, quick=quick)
        best = {
            f"the best ready-made loader{but}": (ready_made, FASTER),
            f"the best reader by hand{but}": (by_hand, LEVEL),
        }
        loaders = [*ready_made, *by_hand, MAPPED]
        claims += _compare(small, rows, best, loaders, repeats=repeats)
        claims.append(_training(small, steps=4 if quick else 100, repeats=repeats))
        rows = imagenet_rows(96 if quick else 3_000)
        large = _write("ImageNet-size rows", rows, Path(folder) / "large", share=1 / 2, quick=quick)
        best = {f"the best of all{but}": ([*ready_made, *by_hand], LEVEL)}
        loaders = loaders[-2 if quick else 0 :]
        claims += _compare(large, rows, best, loaders, repeats=repeats)
        beyond = replace(
            large, name="ImageNet-size rows beyond memory", memory=min(large.memory, BUDGET) // 2, seconds=0.0
        )
        times = _in_turn(beyond, loaders, repeats=repeats, beyond_memory=True)
        claims += _best(beyond, times, {f"the best of all{but}": (loaders, LEVEL)})
    return claims


def _write(name: str, rows: LabelledSigns, folder: Path, *, share: float, quick: bool) -> Stored:
    folder.mkdir()
    (folder / "ours").mkdir()
    stored(rows, folder / "ours")
    for write in {loader.write: None for loader in _OTHERS if loader.installed}:
        write(rows, folder / write.__name__)
    os.sync()
    return Stored(name, folder, int(share * len(rows) * rows.row_bytes), 0.0 if quick else LEAST_SECONDS)


Best = Mapping[str, tuple[list[Loader], float]]


def _compare(at: Stored, rows: LabelledSigns, best: Best, others: list[Loader], *, repeats: int) -> list[Claim]:
    """Measure whole epochs of files that are in the cache, beside other loaders."""
    split, store = opened(at.ours)
    times = _in_turn(at, others, repeats=repeats, beyond_memory=False)
    whole = ReadingPlan(resident=True, chunk=len(rows), window=1)
    steps: dict[str, Step] = {
        "resident": partial(_read, _epochs(InMemoryReader(split, {SIGNS: store}), whole, len(rows)), len(rows)),
        "gathered": partial(_read, partial(_gather, rows), len(rows)),
    }
    found = ratios(seconds(steps, repeats=repeats), "gathered", "resident")
    return [
        *_best(at, times, best),
        claim(f"{at.name}: resident over a plain gather in memory", found, target=GATHER, at="least"),
    ]


def _best(at: Stored, times: Mapping[str, list[float]], best: Best) -> list[Claim]:
    """Our rows a second over those of the best of each round, and over everyone's."""
    claims = []
    for words, (loaders, target) in best.items():
        measured = [times[loader.name] for loader in loaders if loader.name in times]
        least = [min(round_) for round_ in zip(*measured, strict=True)]
        found = ratios({"best": least, _OURS: times[_OURS]}, "best", _OURS)
        claims.append(claim(f"{at.name}: windowed over {words}", found, target=target, at="least"))
    for loader in _OTHERS:
        if loader.name in times:
            claims.append(claim(f"{at.name}: windowed over {loader.name}", ratios(times, loader.name, _OURS)))
    return claims


def _read(epoch: Epoch, rows: int) -> None:
    found = sum(len(batch.labels) for batch in epoch())
    if found != rows:
        raise AssertionError(f"an epoch of {found} rows where there are {rows}")


def _epochs(reader: Reader, plan: ReadingPlan, rows: int) -> Epoch:
    numbers = count()

    def epoch() -> Iterator[Batch]:
        order = plan.order(rows, seed=0, epoch=next(numbers))
        batches = reader.read(Request(rows, SIGNS) for rows in order.batches(BATCH))
        return (Batch(batch.images, batch.labels, batch.planes) for batch in batches)

    return epoch


def _gather(rows: LabelledSigns) -> Iterator[Batch]:
    """Read as plainly as can be: a permutation, and NumPy's indexing."""
    order = np.random.default_rng(0).permutation(len(rows))
    for start in range(0, len(rows), BATCH):
        which = order[start : start + BATCH]
        yield Batch(rows.images[which], rows.labels[which], rows.planes[which])


def _in_turn(at: Stored, loaders: list[Loader], *, repeats: int, beyond_memory: bool) -> dict[str, list[float]]:
    """Return the seconds of whole epochs, ours and others', each in a process of its own."""
    names = [_OURS, *(loader.name for loader in loaders)]
    return in_turn({name: partial(_alone, at, name, beyond_memory) for name in names}, repeats=repeats)


def _alone(at: Stored, name: str, beyond_memory: bool) -> float:
    call = f"alone({str(at.folder)!r}, {at.memory}, {at.seconds}, {name!r}, beyond_memory={beyond_memory})"
    command = [sys.executable, "-W", "ignore", "-c", f"from benchmarks.streaming import alone; {call}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return float(done.stdout.splitlines()[-1])


def alone(folder: str, memory: int, least: float, name: str, *, beyond_memory: bool) -> None:
    """Print the seconds that an epoch takes, the mean of as many as take at least so long.

    Either of a loader that has read one already, or within ``BUDGET`` of files that are not in the system's cache.
    """
    at = Stored("", Path(folder), memory)
    rows = len(opened(at.ours)[0])
    epoch = at.open(name)
    if beyond_memory:
        _leave_cache(at.folder)
        _bound_memory()
    else:
        _read(epoch, rows)
    start, took, epochs = time.perf_counter(), 0.0, 0
    while not epochs or took < least:
        _read(epoch, rows)
        took, epochs = time.perf_counter() - start, epochs + 1
    print(took / epochs)


def _leave_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _bound_memory() -> None:
    limit = own_bytes("VmData") + BUDGET
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


class _Waiting:
    """A reader that counts the seconds for which it is waited for."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.seconds = reader, 0.0

    def read(self, requests: Iterable[Request]) -> Iterator[RawBatch]:
        batches = iter(self.reader.read(requests))
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def _training(at: Stored, *, steps: int, repeats: int) -> Claim:
    """Steps of A on clean images and images perturbed by stored signs, through windows of some 20 batches."""
    split, store = opened(at.ours)
    plan = plan_reading(split, {SIGNS: store}, memory=at.memory // 16)
    adversary = Adversary(
        attack="fgsm",
        epsilon=0.3,
        alpha=0.05,
        clean_weight=0.5,
        sources=(SIGNS,),
        schedule="rotate",
        gradient="exact",
        policy="predicted",
        live_mode="train",
        directions={SIGNS: 1},
    )
    run = TrainingRun(len(split), BATCH, 1, 0, Optimization("adam", 0.001), plan, adversary)
    device = torch.device("cpu")
    shares = []
    for _ in range(repeats):
        model = models.create_model("A", split.sample_shape, split.classes, seed=0)
        trainer = Trainer(model, run, device=device, arithmetic=choose_precision("auto", device))
        reader = _Waiting(WindowedReader(split, {SIGNS: store}, plan))
        taken = trainer.steps(reader)
        next(taken)
        start, reader.seconds = time.perf_counter(), 0.0
        assert sum(1 for _ in islice(taken, steps)) == steps
        shares.append(reader.seconds / (time.perf_counter() - start))
    return claim(f"{at.name}: waiting for a batch over a training step", shares, target=HIDDEN)


if __name__ == "__main__":
    for measured in measure():
        print(measured.line())
