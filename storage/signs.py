"""The sign store: the signs of one static model's input gradients over one dataset, open for reading.

A plain Zarr group with the arrays ``signs``, uint8 (N, 2, ceil(P / 8)), two bit planes of each row's P = C·H·W signs
(see ``bitplanes``), and ``labels``, unsigned (N,), the label each gradient was taken for; and a manifest, which makes
it published. ``building`` makes stores; a published one is never changed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

from storage import bitplanes, manifest
from storage.dataset import Split, ZarrArray
from storage.digests import file_sha256
from storage.errors import GradshardError
from storage.layout import Layout
from storage.manifest import Manifest

Planes = npt.NDArray[np.uint8]


def signs_file(shard: int) -> str:
    """The file of a shard's signs, relative to the store."""
    return f"signs/c/{shard}/0/0"


def labels_file(shard: int) -> str:
    """The file of a shard's labels, relative to the store."""
    return f"labels/c/{shard}"


@dataclass(frozen=True)
class SignStore:
    """A published store, open for reading."""

    path: Path
    manifest: Manifest
    planes: ZarrArray
    labels: ZarrArray

    def __len__(self) -> int:
        return self.manifest.dataset.rows

    @property
    def layout(self) -> Layout:
        """How the rows are cut."""
        cut = self.manifest.layout
        return Layout(rows=len(self), chunk=cut.chunk, shard=cut.shard)

    def read(self, start: int, stop: int) -> Planes:
        """Read the packed signs of rows, uint8 (n, 2, ceil(P / 8)).

        Raises:
            GradshardError: a shard is missing or damaged.
        """
        try:
            planes: Planes = np.asarray(self.planes[start:stop])
        except (OSError, ValueError, RuntimeError) as error:
            raise GradshardError(
                f"{self.path}, rows {start} to {stop - 1}: a chunk cannot be read ({error}); fetch the store again or "
                "run `gradshard precompute` for it"
            ) from error
        illegal = bitplanes.illegal_rows(planes, self.manifest.dataset.pixels)
        if len(illegal):
            row = start + int(illegal[0])
            raise GradshardError(
                f"{self.path}, shard {row // self.layout.shard}: row {row} holds no signs, the shard is missing or "
                "has a hole; fetch the store again or run `gradshard precompute` for it"
            )
        return planes

    def load(self) -> Planes:
        """Read all packed signs, checking every shard against the manifest.

        Raises:
            GradshardError: a shard is missing, damaged or not the one that was published.
        """
        planes = np.empty(self.planes.shape, dtype=np.uint8)
        for shard in range(self.layout.shards):
            self._check_file(signs_file(shard))
            rows = self.layout.shard_rows(shard)
            planes[rows] = self.read(rows.start, rows.stop)
        return planes

    def check_made_for(self, split: Split) -> None:
        """Check that the store's rows are the rows of this split.

        Raises:
            GradshardError: it was built for another dataset, or another order of this one.
        """
        name, made_for = self.path.stem, self.manifest.dataset
        if (made_for.digest, made_for.rows, made_for.sample_shape) != (
            split.digest,
            len(split),
            split.sample_shape,
        ):
            raise GradshardError(
                f"{self.path} was built for {made_for.rows} rows of {made_for.name}, digest {made_for.digest[:12]}, "
                f"not for the {len(split)} rows of {split.dataset}, digest {split.digest[:12]}: run `gradshard "
                f"precompute {name}` for this dataset"
            )

    def _check_file(self, name: str) -> None:
        path, record = self.path / name, self.manifest.files.get(name)
        if record is None or not path.exists():
            raise GradshardError(
                f"{self.path}: shard file {name} is missing; fetch the store again or run `gradshard precompute` for it"
            )
        if file_sha256(path) != record.sha256:
            raise GradshardError(
                f"{self.path}: shard file {name} is damaged (its SHA-256 is not the manifest's); fetch the store again "
                "or run `gradshard precompute` for it"
            )


def open_store(path: Path) -> SignStore:
    """Open a published store.

    Raises:
        GradshardError: nothing published is there, or its arrays do not fit its manifest.
    """
    published = manifest.read_manifest(path)
    try:
        planes, labels = (zarr.open_array(path / name, mode="r") for name in ("signs", "labels"))
    except (OSError, ValueError, KeyError) as error:
        raise GradshardError(f"{path} has a manifest but no readable arrays ({error}): fetch it again") from error
    rows, row_bytes = published.dataset.rows, bitplanes.packed_bytes(published.dataset.pixels)
    if planes.shape != (rows, 2, row_bytes) or planes.dtype != np.uint8 or labels.shape != (rows,):
        raise GradshardError(
            f"{path}: arrays of shape {planes.shape} and {labels.shape} do not fit the manifest's {rows} rows of "
            f"{published.dataset.pixels} pixels; fetch the store again"
        )
    return SignStore(path=path, manifest=published, planes=planes, labels=labels)
