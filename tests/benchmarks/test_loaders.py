"""Whatever is measured beside streaming reads all of the rows, each with its own label and signs, and shuffled."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.loaders import MAPPED, READY_MADE
from benchmarks.readers import BY_HAND

ROOT = Path(__file__).parents[2]
LOADERS = (*READY_MADE, *BY_HAND, MAPPED)
# In one process for all, and not in this one: some loaders fork, which some libraries' threads do not survive.
READ_TWICE = """
import json, sys
from pathlib import Path
import numpy as np
from benchmarks.loaders import MAPPED, READY_MADE, Place
from benchmarks.readers import BY_HAND
from benchmarks.rows import mnist_rows, stored

folder, rows = Path(sys.argv[1]), mnist_rows(700)
stored(rows, folder)
keys = [(i.tobytes(), int(l), p.tobytes()) for i, l, p in zip(rows.images, rows.labels, rows.planes)]
faults = {}
for loader in (*READY_MADE, *BY_HAND, MAPPED):
    if not loader.installed:
        continue
    loader.write(rows, folder / loader.name)
    epoch = loader.open(Place(folder / loader.name, folder, 700, (1, 28, 28), 16, 10))
    faults[loader.name], orders = [], []
    for _ in range(2):
        found = []
        for batch in epoch():
            images, labels, planes = map(np.asarray, batch)
            if images.shape[1:] != (1, 28, 28) or planes.shape[1:] != (2, 98) or not images.flags.c_contiguous:
                faults[loader.name].append("batches of another form")
            found += [(i.tobytes(), int(l), p.tobytes()) for i, l, p in zip(images, labels, planes)]
        if sorted(found) != sorted(keys):
            faults[loader.name].append("other rows")
        orders.append(found)
    if orders[0] == keys or orders[0] == orders[1]:
        faults[loader.name].append("not shuffled anew each epoch")
print(json.dumps(faults))
"""


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    command = [sys.executable, "-W", "ignore", "-c", READ_TWICE, str(tmp_path_factory.mktemp("loaders"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.name)
def test_a_loader_gives_every_row_once_an_epoch_in_another_order(faults, loader):
    if not loader.installed:
        pytest.skip(f"{loader.name} is not installed: benchmarks/streaming.py says how")
    assert faults[loader.name] == []
