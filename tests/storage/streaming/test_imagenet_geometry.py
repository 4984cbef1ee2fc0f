"""A store of ImageNet's full geometry, 1,252 shards: opened, planned, ordered and resumed in constant memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
IMAGENET = 1_281_167
# Metadata, manifest and receipts are real; of shards and images there are holes of the right size on the disk.
PROGRAM = """
import json, sys
from itertools import islice
from pathlib import Path

import numpy as np

from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.dataset_writer import create_root, create_split
from gradshard.storage.formats.digests import RowsDigest
from gradshard.storage.formats.chunking import plan
from gradshard.storage.formats.bitplanes import packed_bytes
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.formats.sign_receipts import Receipt
from gradshard.storage.formats import manifest
from gradshard.storage.formats.manifest import DatasetRecord, DirectionRecord, FileRecord, LayoutRecord, ModelRecord
from gradshard.storage.formats.manifest import StoreSpec
from gradshard.storage.formats.store_paths import MANIFEST, expected_files, labels_file, signs_file
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.streaming.reader import plan_reading
import zarr

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
shape, classes, digest = (3, 299, 299), 1000, "0" * 64
cut = plan(rows, 2 * packed_bytes(3 * 299 * 299))
spec = StoreSpec(
    dataset=DatasetRecord(
        name="synthetic", split="train", digest=digest, rows=rows, sample_shape=shape, classes=classes
    ),
    model=ModelRecord(name="M", architecture="A", digest="1" * 64, weights_sha256="2" * 64),
    direction=DirectionRecord(gradient="exact", label="least_likely", mode="eval", dtype="float32", step=-1),
    layout=LayoutRecord(chunk=cut.chunk, shard=cut.shard),
)
size = cut.shard * 2 * packed_bytes(3 * 299 * 299)


def hole(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def spare(builder, shard):
    sizes = {signs_file(shard): size, labels_file(shard): 2048}
    for name, length in sizes.items():
        hole(builder.store / name, length)
    files = {name: FileRecord(sha256="3" * 64, size=length) for name, length in sizes.items()}
    builder.ledger.add(Receipt(shard=shard, files=files, content="5" * 64, zeros=0, zero_rows=0))


# Resumed: nine shards of ten are there, one of those lost its file.
builder = StoreBuilder(folder / "building", spec)
builder.create()
lacking = [shard for shard in range(cut.shards) if shard % 10 == 7]
for shard in range(cut.shards):
    if shard % 10 != 7:
        spare(builder, shard)
(builder.store / signs_file(0)).unlink()
again = StoreBuilder(folder / "building", spec)
again.create()
assert again.missing() == [0, *lacking]
for shard in again.missing():
    spare(again, shard)
assert again.missing() == []

# Opened: what `publish` writes, without reading 80 GB of holes for their digests.
files = {name: FileRecord(sha256="6" * 64, size=1) for name in sorted(expected_files(cut.shards))}
sealed = manifest.finalize(spec, content="7" * 64, zeros=0, files=files, versions={})
(again.store / MANIFEST).write_text(sealed.text())
store = open_store(again.store)

create_root(folder / "data.zarr", name="synthetic", classes=classes)
for split, count in (("train", rows), ("test", 8)):
    create_split(folder / "data.zarr", split, rows=count, sample_shape=shape, classes=classes)
    zarr.open_group(folder / "data.zarr" / split, mode="r+").attrs["digest"] = digest
train = open_dataset(folder / "data.zarr").train

# Planned and ordered: whole epochs of it, from the middle of one on.
reading = plan_reading(train, {"M": store}, memory=1 << 32)
assert not reading.resident
seen = 0
for epoch in range(2):
    order = reading.order(rows, seed=0, epoch=epoch)
    for batch in order.batches(64, first=rows // 128):
        seen += len(batch)
assert seen == 2 * (rows - rows // 128 * 64)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"shards": cut.shards, "peak": 1024 * int(peak.split()[1])}))
"""


def run(folder, rows):
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(rows)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_store_of_imagenets_geometry_takes_the_memory_of_one_of_a_tenth(tmp_path):
    tenth, whole = run(tmp_path / "tenth", IMAGENET // 10), run(tmp_path / "whole", IMAGENET)
    assert (tenth["shards"], whole["shards"]) == (126, 1252)
    # Its chunks are shuffled as a whole and its files are named: some 8 bytes and 1 kB each.
    assert whole["peak"] - tenth["peak"] < 30_000_000
