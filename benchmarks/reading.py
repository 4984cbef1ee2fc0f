"""Bytes that ranks read for an epoch over the bytes of the rows that they train on, dealt by chunks or drawn at random.

4,608 rows of 3 x 299 x 299 in one window, three stores beside the model itself, batches of 64: the bytes needed are
those that `gradshard plan` counts, each image once and for three batches of four the signs of one store. Each rank is
a process that reads its parts of all batches; Linux counts what it reads. "Drawn" is a window in random order, of
which each rank takes its part of every batch: how it was before rows were dealt to batches by whole chunks.

Beyond four ranks the visits to chunks are counted without reading: ImageNet's rows, windows of 4,575 rows a rank (those
that 4 GiB hold two of), 32 rows of a batch for each of 512 ranks, and 64 for each of eight. Before, ranks did not
share windows: "drawn" has windows of 4,575 rows for any number of them.

How well a window shuffles is told by the neighbours in a batch: how many other rows of its chunk a row meets there.

What it does not show: time, or several machines.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.ratios import Claim, claim
from benchmarks.rows import SIGNS, imagenet_rows, opened, stored
from gradshard.pipeline.training import schedule
from gradshard.pipeline.types import SELF
from gradshard.storage.streaming.dealing import DealtBatches
from gradshard.storage.streaming.reader import ReadingPlan, WindowedReader
from gradshard.storage.streaming.shuffle import Rows, ShuffleOrder
from gradshard.storage.streaming.windows import Request, WindowPlanner

TWICE = 1.1

_SOURCES = (SELF, "A", "C", "D")
_CHUNK, _IMAGE_CHUNK, _PIXELS = 16, 4, 3 * 299 * 299
_IMAGENET, _WINDOW = 1_281_167, 4_575
# Real signs take less; the plan counts with so many bits each.
_SIGN_BYTES = int(_PIXELS * 1.05 / 8)

Batches = Callable[[ShuffleOrder, int], Iterator[Request]]


def _store_of(batches: int) -> Callable[[int], str | None]:
    def store_of(batch: int) -> str | None:
        source = schedule.source("random", _SOURCES, seed=0, epoch=0, batch=batch, batches=batches)
        return None if source == SELF else source

    return store_of


def drawn(order: ShuffleOrder, size: int) -> Iterator[Request]:
    """Yield batches of windows that are shuffled as a whole."""
    store_of = _store_of(order.rows // size)
    return (Request(rows, store_of(batch), order.epoch) for batch, rows in enumerate(order.batches(size)))


def dealt(order: ShuffleOrder, size: int) -> Iterator[Request]:
    """Yield batches of windows that are dealt by chunks."""
    return DealtBatches(order, size, _store_of(order.rows // size)).requests()


_WAYS: Mapping[str, Batches] = {"dealt": dealt, "drawn": drawn}


def measure(*, quick: bool = False) -> list[Claim]:
    """Compare what is read with what is needed, and the neighbours in a batch with those in one drawn at random."""
    return [*_read(quick=quick), *_simulated(quick=quick), *_neighbours(quick=quick)]


def _read(*, quick: bool) -> list[Claim]:
    rows, window = (192, 64) if quick else (4_608, 4_608)
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        stored(imagenet_rows(rows), Path(folder))
        for ranks in (1, 2, 4):
            for way in _WAYS:
                ratio = _ratio(folder, way, ranks, window)
                name = f"bytes that {_several(ranks)} read over bytes needed, {way}"
                claims.append(claim(name, [ratio], target=TWICE if way == "dealt" and not quick else None))
    return claims


def _several(ranks: int) -> str:
    return "1 rank" if ranks == 1 else f"{ranks} ranks"


def _ratio(folder: str, way: str, ranks: int, window: int) -> float:
    """Let the ranks read at once, each in a process."""
    code = "import sys; from benchmarks.reading import rank; rank(*sys.argv[1:])"
    commands = [[sys.executable, "-c", code, folder, way, f"{n}", f"{ranks}", f"{window}"] for n in range(ranks)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    found = [process.communicate()[0].split() for process in processes]
    if any(process.returncode for process in processes):
        raise AssertionError(f"a rank of {ranks} failed")
    return sum(int(read) for read, _ in found) / sum(int(needed) for _, needed in found)


def rank(folder: str, way: str, number: str, ranks: str, window: str) -> None:
    """Read a rank's part of an epoch, and print the bytes that Linux counted, and those that were needed."""
    split, store = opened(Path(folder))
    chunk = max(split.layout.chunk, store.layout.chunk)
    plan = ReadingPlan(resident=False, chunk=chunk, window=int(window) // chunk)
    reader = WindowedReader(split, dict.fromkeys(_SOURCES[1:], store), plan)
    requests = _WAYS[way](plan.order(len(split), seed=0, epoch=0), 64)
    files = [path for path in Path(folder, f"{SIGNS}.zarr", "signs").rglob("*") if path.is_file()]
    of_signs = sum(path.stat().st_size for path in files) / len(split)
    needed, before = 0.0, _bytes_read()
    for batch, request in zip(
        reader.read(_part(request, int(number), int(ranks)) for request in requests),
        _WAYS[way](plan.order(len(split), seed=0, epoch=0), 64),
        strict=True,
    ):
        needed += batch.images.nbytes + (of_signs * len(batch.labels) if request.store else 0)
    print(_bytes_read() - before, round(needed))


def _part(request: Request, number: int, ranks: int) -> Request:
    rows = len(request.rows)
    return request.part(slice(number * rows // ranks, (number + 1) * rows // ranks))


def _bytes_read() -> int:
    """Bytes that this process has read, from the disk or from the system's cache."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


@dataclass(frozen=True)
class _Run:
    """Training on so many rows, by so many ranks that each hold a window."""

    rows: int
    ranks: int
    batch: int
    shared: bool

    @property
    def order(self) -> ShuffleOrder:
        """Return the order: of windows of all ranks together where they share them, else of one's."""
        window = _WINDOW // _CHUNK * (self.ranks if self.shared else 1)
        return ShuffleOrder(rows=self.rows, chunk=_CHUNK, window=window, seed=0, epoch=0)


def _simulated(*, quick: bool) -> list[Claim]:
    rows = 8_192 if quick else _IMAGENET
    claims = []
    for ranks, batch in ((1, 64), (1, 800), (8, 512), (512, 16_384)):
        if batch > rows:
            continue
        for way, batches in _WAYS.items():
            found = [_visits(_Run(rows, ranks, batch, way == "dealt"), batches, number) for number in {0, ranks // 3}]
            name = f"bytes that {_several(ranks)} would read over bytes needed, batches of {batch}, {way}"
            claims.append(claim(name, found, target=TWICE if way == "dealt" and not quick else None))
    return claims


def _visits(run: _Run, batches: Batches, number: int) -> float:
    """Count the bytes of the chunks that a rank visits, and those of its rows."""
    planner = WindowPlanner(rows=run.rows, chunk=_CHUNK, window=_WINDOW // _CHUNK)
    read = needed = 0
    for cut in planner.windows(_part(request, number, run.ranks) for request in batches(run.order, run.batch)):
        read += _IMAGE_CHUNK * _PIXELS * _distinct(cut.rows, _IMAGE_CHUNK)
        needed += _PIXELS * len(cut.rows)
        for rows in cut.signs.values():
            read += _CHUNK * _SIGN_BYTES * _distinct(rows, _CHUNK)
            needed += _SIGN_BYTES * len(rows)
    return read / needed


def _distinct(rows: Rows, chunk: int) -> int:
    return len(np.unique(rows // chunk))


def _neighbours(*, quick: bool) -> list[Claim]:
    claims = []
    for ranks, batch in ((1, 64), (1, 800), (8, 800)):
        dealing, drawing = (_Run(_IMAGENET, ranks, batch, shared) for shared in (True, False))
        few = 20 if quick else 4 * _WINDOW * ranks // batch
        found = _mean_neighbours(dealt(dealing.order, batch), few) / _mean_neighbours(drawn(drawing.order, batch), few)
        name = f"neighbours in batches of {batch}, {_several(ranks)}: dealt over drawn"
        claims.append(claim(name, [found]))
    return claims


def _mean_neighbours(requests: Iterator[Request], few: int) -> float:
    pairs = rows = 0
    for request in islice(requests, few):
        counts = np.unique(request.rows // _CHUNK, return_counts=True)[1]
        pairs, rows = pairs + int((counts * (counts - 1)).sum()), rows + len(request.rows)
    return pairs / rows


if __name__ == "__main__":
    for measured in measure():
        print(measured.line())
