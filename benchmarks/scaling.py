"""Ten times the rows: ten times the time, the same peak memory, and a dataset and store that open as fast.

60,000 and 600,000 rows of MNIST's size, of which windowed streaming may hold 32 MB. Each reading is a process of its
own, which goes through an epoch to warm up and then through ten or one; its peak is the most memory that it ever had,
interpreter and libraries included. Opening is timed in this process.

What it does not show: rows that are not in the system's cache, and the resident mode, whose memory grows with the rows
because it holds them all. A store's manifest names all its files, which are as many for either number of these rows;
where there are ten times as many, 1,252 shards of ImageNet-size rows, it takes some milliseconds more: `opening` holds
what that means for a command.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.ratios import Claim, claim, compare
from benchmarks.rows import SIGNS, mnist_rows, opened, stored
from storage.stream import Windowed, plan_reading
from storage.windows import Request

ROWS, TIMES = 60_000, 10
TIME, MEMORY, OPENING = 1.1, 1.05, 1.1

_MEMORY = 32_000_000
_BATCH = 64


def measure(*, quick: bool = False) -> list[Claim]:
    """Compare few rows with ten times as many."""
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
    reader = Windowed(split, {SIGNS: store}, plan)
    start = 0.0
    for epoch in range(epochs + 1):
        if epoch == 1:
            start = time.perf_counter()
        order = plan.order(len(split), seed=0, epoch=epoch)
        for _ in reader.read(Request(rows, SIGNS) for rows in order.batches(_BATCH)):
            pass
    seconds = time.perf_counter() - start
    # Not what `getrusage` tells: that counts what the parent process had when it started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak": 1024 * int(peak.split()[1])}))


if __name__ == "__main__":
    for measured in measure():
        print(measured.line())
