"""Telling what a store is costs the same for 12 shards and for ImageNet's 1,252: whole processes of `store info`.

What it does not show: reading the data, or a store at a URL.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.ratios import Claim, compare
from gradshard.storage.formats.bitplanes import packed_bytes
from gradshard.storage.formats.chunking import plan
from gradshard.storage.formats.manifest import (
    DatasetRecord,
    DirectionRecord,
    FileRecord,
    LayoutRecord,
    ModelRecord,
    StoreSpec,
    finalize,
)
from gradshard.storage.formats.store_paths import MANIFEST, expected_files

TARGET = 1.1


def measure(*, quick: bool = False) -> list[Claim]:
    """Compare whole processes of `gradshard store info`, on stores of both sizes."""
    with tempfile.TemporaryDirectory() as folder:
        small = _store(Path(folder) / "small.zarr", rows=60_000, sample_shape=(1, 28, 28), shard=5_120, chunk=512)
        large = _store(Path(folder) / "large.zarr", rows=1_281_167, sample_shape=(3, 299, 299))
        name = "`store info` on 1,252 shards over 12 shards"
        return [compare(name, lambda: _info(large), lambda: _info(small), target=TARGET, repeats=1 if quick else 9)]


def _info(store: Path) -> None:
    subprocess.run([sys.executable, "-m", "gradshard", "store", "info", str(store)], check=True, capture_output=True)


def _store(
    path: Path, *, rows: int, sample_shape: tuple[int, int, int], shard: int | None = None, chunk: int | None = None
) -> Path:
    """Return a store's manifest, which is all that `info` reads; its digests are made up."""
    pixels = sample_shape[0] * sample_shape[1] * sample_shape[2]
    cut = plan(rows, 2 * packed_bytes(pixels))
    spec = StoreSpec(
        dataset=DatasetRecord(
            name="synthetic", split="train", digest="0" * 64, rows=rows, sample_shape=sample_shape, classes=1000
        ),
        model=ModelRecord(name="M", architecture="M", digest="1" * 64, weights_sha256="2" * 64),
        direction=DirectionRecord(gradient="exact", label="predicted", mode="eval", dtype="float32", step=1),
        layout=LayoutRecord(chunk=chunk or cut.chunk, shard=shard or cut.shard),
    )
    files = {name: FileRecord(sha256="3" * 64, size=1) for name in sorted(expected_files(spec.cut.shards))}
    manifest = finalize(spec, content="4" * 64, zeros=0, files=files, versions={})
    path.mkdir()
    (path / MANIFEST).write_text(manifest.text())
    return path


if __name__ == "__main__":
    for claim in measure():
        print(claim.line())
