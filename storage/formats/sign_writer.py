"""Building a sign store, shard by shard, by any number of workers; its manifest publishes it.

One task computes and writes one whole shard, and writing a shard again gives the same bytes; so a build that was killed
goes on with the shards that have no receipt, and it does not matter which worker computed which shard.
"""

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from gradshard.storage import __version__
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import chunking, manifest, sign_arrays, store_card
from gradshard.storage.formats.atomic import copy, remove_strays, replace_folder, sync, write_text
from gradshard.storage.formats.bitplanes import Labels, Planes, packed_bytes
from gradshard.storage.formats.chunking import Layout
from gradshard.storage.formats.croissant import croissant
from gradshard.storage.formats.dataset import Split, label_dtype
from gradshard.storage.formats.digests import digest_of, file_sha256
from gradshard.storage.formats.manifest import (
    DatasetRecord,
    DirectionRecord,
    FileRecord,
    LayoutRecord,
    Manifest,
    ModelRecord,
    StoreSpec,
)
from gradshard.storage.formats.row_table import write_row_table
from gradshard.storage.formats.sign_receipts import Ledger, Receipt
from gradshard.storage.formats.store_paths import (
    CARD,
    CROISSANT,
    MANIFEST,
    ROWS,
    SIGNATURE,
    metadata_files,
    shard_files,
)

# The libraries on which the bytes of a store depend.
_LIBRARIES = ("numcodecs", "numpy", "pyarrow", "torch", "zarr")


def make_spec(split: Split, model: ModelRecord, direction: DirectionRecord, *, licence: str | None = None) -> StoreSpec:
    """Describe the store of a model's signs over the rows of a split, before it is computed."""
    record = DatasetRecord(
        name=split.dataset,
        split=split.name,
        digest=split.digest,
        rows=len(split),
        sample_shape=split.sample_shape,
        classes=split.classes,
    )
    return spec_for(record, model, direction, licence=licence)


def spec_for(
    rows: DatasetRecord, model: ModelRecord, direction: DirectionRecord, *, licence: str | None = None
) -> StoreSpec:
    """Describe the store of a model's signs over some rows, with the layout of every store of such rows."""
    cut = chunking.plan(rows.rows, 2 * packed_bytes(rows.pixels))
    return StoreSpec(
        dataset=rows,
        model=model,
        direction=direction,
        layout=LayoutRecord(chunk=cut.chunk, shard=cut.shard),
        licence=licence,
    )


@dataclass(frozen=True)
class StoreBuilder:
    """A store that is being built in a folder of its own, where a ledger records which shards are done."""

    folder: Path
    spec: StoreSpec

    @property
    def layout(self) -> Layout:
        """Return the layout of the rows."""
        return self.spec.cut

    @property
    def store(self) -> Path:
        """The Zarr group that is being filled."""
        return self.folder / "store"

    @cached_property
    def ledger(self) -> Ledger:
        """The receipts of finished shards."""
        return Ledger(self.folder / "ledger")

    def create(self) -> None:
        """Create the empty arrays unless an earlier run did; called by one process, before any shard is written."""
        if all((self.store / name).exists() for name in metadata_files(self.spec.copies)):
            return
        temporary = self.folder / "store.new"
        for leftover in (temporary, self.store):
            shutil.rmtree(leftover, ignore_errors=True)
        sign_arrays.create_arrays(temporary, self.spec)
        temporary.rename(self.store)

    def missing(self) -> list[int]:
        """Return the shards that are still to be computed."""
        done = self.ledger.done(self.store)
        return [shard for shard in range(self.layout.shards) if shard not in done]

    def write_shard(self, shard: int, planes: Planes, labels: Labels) -> Receipt:
        """Write one whole shard and its receipt; writing it again gives the same bytes.

        Args:
            shard: which one.
            planes: the packed signs of all its rows, uint8 (n, 2, ceil(P / 8)), or (copies, n, 2, ceil(P / 8)).
            labels: the labels the gradients were taken for, (n,).
        """
        rows = self.layout.shard_rows(shard)
        planes = planes.reshape(self.spec.copies, rows.stop - rows.start, *planes.shape[-2:])
        stored = labels.astype(label_dtype(self.spec.dataset.classes))
        files = shard_files(shard, self.spec.copies)
        if rows.stop - rows.start < self.layout.shard:
            # Zarr merges a shard that is not full with its old file, which a power failure may have spoiled.
            for file in files:
                (self.store / file).unlink(missing_ok=True)
        sign_arrays.write_shard(self.store, rows, planes=planes, labels=stored)
        zeros = np.bitwise_count(planes[:, :, 1]).sum(axis=-1, dtype=np.int64)
        for file in files:
            sync(self.store / file)
        receipt = Receipt(
            shard=shard,
            files={file: _file_record(self.store / file) for file in files},
            content=shard_content(planes, stored),
            zeros=int(zeros.sum()),
            zero_rows=int((zeros == self.spec.dataset.pixels).all(axis=0).sum()),
        )
        self.ledger.add(receipt)
        return receipt

    def zero_rows(self) -> int:
        """Count the rows of finished shards in which every sign is 0."""
        return sum(receipt.zero_rows for receipt in self.ledger.done(self.store).values())

    def publish(self, target: Path) -> Manifest:
        """Check every shard against its receipt, write descriptions and manifest, and rename the store to ``target``.

        The signature of a store at ``target`` is kept if the manifests are equal, byte for byte.

        Raises:
            GradshardError: a shard is missing, or its file is not what its receipt says.
        """
        receipts = self._checked_receipts(target)
        zeros = sum(receipt.zeros for receipt in receipts)
        files = {name: record for receipt in receipts for name, record in receipt.files.items()}
        page = store_card.card(self.spec, zeros=zeros, files=files)
        write_text(self.store / CARD, page)
        write_row_table(self.store, self.spec, self.store / ROWS)
        for name in (CARD, ROWS, *metadata_files(self.spec.copies)):
            files[name] = _file_record(self.store / name)
        versions = {"gradshard": __version__, **{name: version(name) for name in _LIBRARIES}}
        write_text(self.store / CROISSANT, croissant(self.spec, files=files, versions=versions))
        files[CROISSANT] = _file_record(self.store / CROISSANT)
        remove_strays(self.store, keep=files)
        published = manifest.finalize(
            self.spec,
            content=content_digest(receipt.content for receipt in receipts),
            zeros=zeros,
            files=dict(sorted(files.items())),
            versions=versions,
        )
        write_text(self.store / MANIFEST, published.text())
        self._keep_signature(target, published)
        replace_folder(self.store, target)
        return published

    def _keep_signature(self, target: Path, published: Manifest) -> None:
        signature, before = target / SIGNATURE, target / MANIFEST
        if signature.is_file() and before.is_file() and before.read_bytes() == published.text().encode():
            copy(signature, self.store / SIGNATURE)

    def _checked_receipts(self, target: Path) -> list[Receipt]:
        """Return all receipts in the order of the shards, each checked against its files."""
        receipts = self.ledger.done(self.store)
        lacking = [shard for shard in range(self.layout.shards) if shard not in receipts]
        if lacking:
            raise GradshardError(
                f"{target} cannot be published: {len(lacking)} of {self.layout.shards} shards are missing (first: "
                f"{lacking[0]}); run the same command again"
            )
        for receipt in receipts.values():
            for name, record in receipt.files.items():
                if file_sha256(self.store / name) != record.sha256:
                    raise GradshardError(
                        f"{self.store / name} is not what was written there: remove it and run the same command again"
                    )
        return [receipts[shard] for shard in range(self.layout.shards)]


def content_digest(shards: Iterable[str]) -> str:
    """Return the digest of a store's content from the digests of its shards, in order."""
    return digest_of({"shards": list(shards)})


def shard_content(copies: Iterable[Planes], labels: Labels) -> str:
    """Return the digest of a decoded shard: its packed signs, copy by copy, then its labels, int64, little-endian."""
    sha256 = hashlib.sha256()
    for planes in copies:
        sha256.update(np.ascontiguousarray(planes).data)
    sha256.update(labels.astype("<i8").tobytes())
    return sha256.hexdigest()


def _file_record(path: Path) -> FileRecord:
    return FileRecord(sha256=file_sha256(path), size=path.stat().st_size)
