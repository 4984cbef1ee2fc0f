"""Building a sign store: shard by shard, by any number of workers, then published by its manifest.

One task computes and writes one whole shard, and writing a shard again gives the same bytes; so a build that was killed
goes on with the shards that have no receipt, and it does not matter who computed which.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ShardingCodecIndexLocation, ZstdCodec

from storage import __version__, bitplanes, card, manifest
from storage.dataset import Labels, label_dtype
from storage.digests import digest_of, file_sha256
from storage.errors import GradshardError
from storage.files import replace_folder, sync, write_text
from storage.layout import Layout
from storage.ledger import Ledger, Receipt
from storage.manifest import FileRecord, Manifest, StoreSpec
from storage.signs import Planes, labels_file, signs_file

ENCODING = (
    "Bit planes, most significant bit first: plane 0 is sign > 0, plane 1 is sign == 0, so sign = 2 * plane0 + plane1 "
    "- 1; a row that was never written decodes to 2."
)


@dataclass(frozen=True)
class StoreBuilder:
    """A store that is being built in a folder of its own, where a ledger tells which shards are done."""

    folder: Path
    spec: StoreSpec

    @property
    def layout(self) -> Layout:
        """How the rows are cut."""
        cut = self.spec.layout
        return Layout(rows=self.spec.dataset.rows, chunk=cut.chunk, shard=cut.shard)

    @property
    def store(self) -> Path:
        """The Zarr group that is being filled."""
        return self.folder / "store"

    @cached_property
    def ledger(self) -> Ledger:
        """The receipts of finished shards."""
        return Ledger(self.folder / "ledger")

    def create(self) -> None:
        """Lay out the empty arrays, unless an earlier run did. For one process alone, before any shard is written."""
        if self.store.exists():
            return
        temporary = self.folder / "store.new"
        shutil.rmtree(temporary, ignore_errors=True)
        _create_arrays(temporary, self.spec)
        temporary.rename(self.store)

    def missing(self) -> list[int]:
        """The shards that are still to be computed."""
        done = self.ledger.done(self.store)
        return [shard for shard in range(self.layout.shards) if shard not in done]

    def write_shard(self, shard: int, planes: Planes, labels: Labels) -> Receipt:
        """Write one whole shard and its receipt; writing it again gives the same bytes.

        Args:
            shard: which one.
            planes: the packed signs of all its rows, uint8 (n, 2, ceil(P / 8)).
            labels: the labels the gradients were taken for, (n,).
        """
        rows = self.layout.shard_rows(shard)
        arrays = {"signs": planes, "labels": labels.astype(label_dtype(self.spec.dataset.classes))}
        for name, values in arrays.items():
            array = zarr.open_array(self.store / name, mode="r+", config={"write_empty_chunks": True})
            array[rows] = values
        files = [signs_file(shard), labels_file(shard)]
        for file in files:
            sync(self.store / file)
        pixels = self.spec.dataset.pixels
        receipt = Receipt(
            shard=shard,
            files={file: _file_record(self.store / file) for file in files},
            content=_content(arrays["signs"], arrays["labels"]),
            zeros=int(np.unpackbits(planes[:, 1], axis=-1, count=pixels).sum()),
        )
        self.ledger.add(receipt)
        return receipt

    def publish(self, target: Path) -> Manifest:
        """Check every shard against its receipt, write card and manifest, and rename the store to ``target``.

        Raises:
            GradshardError: a shard is missing, or its file is not what its receipt says.
        """
        receipts = self._checked_receipts(target)
        zeros = sum(receipt.zeros for receipt in receipts)
        files = {name: record for receipt in receipts for name, record in receipt.files.items()}
        page = card.card(
            self.spec,
            zero_fraction=zeros / (self.spec.dataset.rows * self.spec.dataset.pixels),
            size=sum(record.size for record in files.values()),
            files=len(files),
        )
        write_text(self.store / card.FILE_NAME, page)
        for name in (card.FILE_NAME, "zarr.json", "signs/zarr.json", "labels/zarr.json"):
            files[name] = _file_record(self.store / name)
        _sweep(self.store, keep=files)
        published = Manifest(
            **dict(self.spec),
            content=digest_of({"shards": [receipt.content for receipt in receipts]}),
            zeros=zeros,
            files=dict(sorted(files.items())),
            versions={
                "gradshard": __version__,
                **{name: version(name) for name in ("numpy", "torch", "zarr")},
            },
        )
        write_text(self.store / manifest.FILE_NAME, published.model_dump_json(indent=1))
        replace_folder(self.store, target)
        return published

    def _checked_receipts(self, target: Path) -> list[Receipt]:
        """All receipts in the order of the shards, each held against its files."""
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


def _create_arrays(path: Path, spec: StoreSpec) -> None:
    rows, row_bytes = spec.dataset.rows, bitplanes.packed_bytes(spec.dataset.pixels)
    root = zarr.open_group(path, mode="w-", zarr_format=3)
    root.attrs.update(
        {
            "format": manifest.FORMAT,
            "version": manifest.VERSION,
            "encoding": ENCODING,
            "sample_shape": list(spec.dataset.sample_shape),
        }
    )
    codecs = [ZstdCodec(level=1), Crc32cCodec()]
    root.create_array(
        "signs",
        shape=(rows, 2, row_bytes),
        dtype="uint8",
        chunks=(spec.layout.chunk, 2, row_bytes),
        # The index first: a reader that cannot ask for the end of a file can still read the store.
        shards={"shape": (spec.layout.shard, 2, row_bytes), "index_location": ShardingCodecIndexLocation.start},
        compressors=codecs,
        fill_value=bitplanes.FILL_BYTE,
        dimension_names=("row", "plane", "byte"),
    )
    labels = label_dtype(spec.dataset.classes)
    root.create_array(
        "labels",
        shape=(rows,),
        dtype=labels,
        chunks=(spec.layout.shard,),
        compressors=codecs,
        fill_value=int(np.iinfo(labels).max),
        dimension_names=("row",),
    )


def _content(planes: Planes, labels: Labels) -> str:
    sha256 = hashlib.sha256(np.ascontiguousarray(planes).tobytes())
    sha256.update(labels.astype("<i8").tobytes())
    return sha256.hexdigest()


def _file_record(path: Path) -> FileRecord:
    return FileRecord(sha256=file_sha256(path), size=path.stat().st_size)


def _sweep(folder: Path, *, keep: Mapping[str, FileRecord]) -> None:
    """Remove what killed writers left behind."""
    for path in folder.rglob("*"):
        if path.is_file() and str(path.relative_to(folder)) not in keep:
            path.unlink()
