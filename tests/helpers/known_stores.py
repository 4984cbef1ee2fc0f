"""Published sign stores whose signs and labels are known, to be damaged, verified and repaired."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gradshard.storage.formats import bitplanes, manifest
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.manifest import (
    DatasetRecord,
    DirectionRecord,
    FileRecord,
    LayoutRecord,
    Manifest,
    ModelRecord,
    StoreSpec,
    read_manifest,
)
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.formats.store_files import Folder
from gradshard.storage.formats.store_paths import MANIFEST
from gradshard.storage.maintenance.repair import repair
from gradshard.storage.maintenance.verify import Fault, verify
from tests.helpers.stores import random_signs


def spec_of(
    rows: int, *, chunk: int, shard: int, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10
) -> StoreSpec:
    return StoreSpec(
        dataset=DatasetRecord(
            name="digits", split="train", digest="2" * 64, rows=rows, sample_shape=shape, classes=classes
        ),
        model=ModelRecord(name="M", architecture="A", digest="0" * 64, weights_sha256="1" * 64),
        direction=DirectionRecord(gradient="exact", label="predicted", mode="eval", dtype="float32", step=1),
        layout=LayoutRecord(chunk=chunk, shard=shard),
        licence="CC0-1.0",
    )


@dataclass(frozen=True)
class KnownStore:
    """A published store whose signs and labels are known."""

    path: Path
    signs: np.ndarray
    labels: np.ndarray
    computed: list[int] = field(default_factory=list)

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.path)

    def compute(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        self.computed.append(shard)
        rows = self.manifest.cut.shard_rows(shard)
        return bitplanes.pack(self.signs[rows]), self.labels[rows]

    def verify(self) -> list[Fault]:
        return verify(Folder(self.path), self.manifest, advance=lambda _: None, threads=2)

    def repair(self, faults: list[Fault]) -> list[Fault]:
        """Repair the store and return the faults that are left; ``computed`` lists the shards that were computed."""
        self.computed.clear()
        scratch = self.path.parent / "scratch"
        scratch.mkdir()
        try:
            return repair(
                self.path, self.manifest, faults, scratch=scratch, compute=self.compute, advance=lambda _: None
            )
        finally:
            shutil.rmtree(scratch)

    def contents(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.path)): p.read_bytes() for p in self.path.rglob("*") if p.is_file()}


def publish(
    target: Path, spec: StoreSpec, *, change: Callable[[np.ndarray, np.ndarray], None] = lambda planes, labels: None
) -> KnownStore:
    """Publish a store of random signs and labels; ``change`` may first spoil the packed signs and the labels."""
    rows, pixels = spec.dataset.rows, spec.dataset.pixels
    signs = random_signs(rows, pixels, seed=5)
    labels = np.random.default_rng(6).integers(0, spec.dataset.classes, rows)
    planes, written = bitplanes.pack(signs), labels.copy()
    change(planes, written)
    builder = StoreBuilder(target.parent / f"building-{target.name}", spec)
    builder.create()
    for shard in builder.missing():
        part = builder.layout.shard_rows(shard)
        builder.write_shard(shard, planes[part], written[part])
    builder.publish(target)
    return KnownStore(target, signs, labels)


def reseal(path: Path, **changes: object) -> None:
    """Give a store a manifest that agrees with its current files, except for ``changes``."""
    old = read_manifest(path)
    files = {name: FileRecord(sha256=file_sha256(path / name), size=(path / name).stat().st_size) for name in old.files}
    fields = {"content": old.content, "zeros": old.zeros, "versions": old.versions, "files": files, **changes}
    (path / MANIFEST).write_text(manifest.finalize(old.spec, **fields).text())
