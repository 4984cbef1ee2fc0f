"""The sign store, open for reading: the signs of one static model's gradients, or of an attack on it, over one dataset.

It is a plain Zarr group with the arrays ``signs``, uint8 (N, 2, ceil(P / 8)), two bit planes of each row's P = C·H·W
signs (see ``bitplanes``), and ``labels``, unsigned (N,), the label each gradient was taken for; with its manifest it is
published. Further copies, other random draws of the same attack, are arrays of their own beside ``signs``.
``sign_writer`` makes stores; a published store is never changed.
"""

import hashlib
import io
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes, sign_arrays
from gradshard.storage.formats.bitplanes import Planes
from gradshard.storage.formats.chunking import Layout, check_range
from gradshard.storage.formats.dataset import label_dtype
from gradshard.storage.formats.gather import gather
from gradshard.storage.formats.labelled_rows import LabelledRows
from gradshard.storage.formats.manifest import Manifest, read_manifest
from gradshard.storage.formats.shard_reader import DamagedError, Encoding, Rows, Scratch, ShardReader, decode
from gradshard.storage.formats.store_files import Folder, StoreFiles
from gradshard.storage.formats.store_paths import labels_file, metadata_files, signs_file


@dataclass(frozen=True)
class SignStore:
    """A published store, open for reading.

    ``where`` is its path or URL; a ``remote`` store is read in whole shards. Of several copies the ``chosen`` one is
    read, or the first; training takes all of them ``in_turn`` unless one was chosen.
    """

    where: str
    manifest: Manifest
    files: StoreFiles
    remote: bool = False
    chosen: int | None = None

    def __len__(self) -> int:
        return self.manifest.dataset.rows

    @property
    def layout(self) -> Layout:
        """Return the layout of the rows."""
        return self.manifest.cut

    @property
    def copy(self) -> int:
        """Return the number of the copy that is read, counted from 0."""
        return self.chosen or 0

    @property
    def in_turn(self) -> tuple["SignStore", ...]:
        """Return the copies that training takes in turn: all, or the chosen one alone."""
        if self.chosen is not None:
            return (self,)
        return tuple(self.of_copy(copy) for copy in range(self.manifest.copies))

    def of_copy(self, copy: int) -> "SignStore":
        """Return the same store with one copy, counted from 0, chosen for reading.

        Raises:
            GradshardError: the store has no such copy.
        """
        if not 0 <= copy < self.manifest.copies:
            raise GradshardError(
                f"{self.where} has no copy {copy}: it has {self.manifest.copies}, counted from 0 on; name one of them"
            )
        return replace(self, chosen=copy)

    def read(self, start: int, stop: int) -> Planes:
        """Read the packed signs of rows, uint8 (n, 2, ceil(P / 8)).

        Raises:
            GradshardError: there are no such rows, or a shard is missing or damaged.
        """
        check_range(start, stop, rows=len(self), where=self.where)
        planes = self._empty(stop - start)
        gather(self, np.arange(start, stop), planes)
        return planes

    def take(self, shard: int, rows: Rows, out: Planes, positions: Rows, scratch: Scratch) -> None:
        """Read the packed signs of individual rows of a shard into given places.

        Args:
            shard: which shard.
            rows: rows of the shard, in ascending order.
            out: uint8 (n, 2, ceil(P / 8)), contiguous; row ``rows[i]`` goes to ``out[positions[i]]``.
            positions: as many as rows.
            scratch: the calling thread's own.

        Raises:
            GradshardError: the shard is missing or damaged.
        """
        try:
            with self.files.open(signs_file(shard, self.copy)) as file:
                self._take(file, shard, rows, out, positions, scratch)
        except FileNotFoundError as error:
            raise self._missing(signs_file(shard, self.copy)) from error

    def load(self) -> Planes:
        """Read all packed signs, checking every shard against the manifest.

        Raises:
            GradshardError: a shard is missing, damaged or not the one that was published.
        """
        planes = self._empty(len(self))
        self.load_into(planes)
        return planes

    def load_into(self, planes: Planes) -> None:
        """Read all packed signs, as ``load`` does, into the caller's array, uint8 (N, 2, ceil(P / 8))."""
        scratch = Scratch()
        for shard in range(self.layout.shards):
            part = self.layout.shard_rows(shard)
            rows = np.arange(part.start, part.stop)
            content = self._checked(signs_file(shard, self.copy))
            self._take(io.BytesIO(content), shard, rows, planes, rows, scratch)

    def load_labels(self) -> npt.NDArray[np.int64]:
        """Read the label that each gradient was taken for, int64 (N,).

        Raises:
            GradshardError: a shard's labels are missing, damaged or not those that were published.
        """
        dtype = label_dtype(self.manifest.dataset.classes)
        labels = np.empty(self.layout.shards * self.layout.shard, dtype=dtype)
        for shard in range(self.layout.shards):
            part = labels[shard * self.layout.shard :][: self.layout.shard]
            try:
                decode(self._checked(labels_file(shard)), part.view(np.uint8))
            except ValueError as error:
                raise GradshardError(f"{self.where}: {labels_file(shard)}: {error}; fetch the store again") from error
        return labels[: len(self)].astype(np.int64)

    def load_classes(self, split: LabelledRows) -> npt.NDArray[np.int64]:
        """Read the labels as ``load_labels`` does, and check that each is a class of the split.

        Raises:
            GradshardError: a label is not a class, or a shard's labels are missing or damaged.
        """
        labels = self.load_labels()
        wrong = np.flatnonzero((labels < 0) | (labels >= split.classes))
        if len(wrong):
            raise GradshardError(
                f"{self.where}: row {int(wrong[0])} is stored for the label {int(labels[wrong[0]])}, but "
                f"{split.dataset} has the classes 0 to {split.classes - 1}: see by `gradshard store audit` what else "
                "is wrong, and get the store from elsewhere or compute it"
            )
        return labels

    def check_made_for(self, split: LabelledRows) -> None:
        """Check that the store's rows are the rows of this split.

        Raises:
            GradshardError: the store was built for another dataset, or another order of this one.
        """
        made_for = self.manifest.dataset
        if (made_for.digest, made_for.rows, made_for.sample_shape) != (split.digest, len(split), split.sample_shape):
            raise GradshardError(
                f"{self.where} was built for {made_for.rows} rows of {made_for.name}, digest {made_for.digest[:12]}, "
                f"not for the {len(split)} rows of {split.dataset}, digest {split.digest[:12]}: run `gradshard "
                f"precompute {Path(self.where).stem}` for this dataset"
            )

    def _empty(self, rows: int) -> Planes:
        return np.empty((rows, 2, self.manifest.row_bytes // 2), dtype=np.uint8)

    def _take(self, file: BinaryIO, shard: int, rows: Rows, out: Planes, positions: Rows, scratch: Scratch) -> None:
        reader = ShardReader(file, shard, Encoding(self.layout), scratch)
        try:
            reader.take(rows, out, positions, check=partial(self._check, shard))
        except DamagedError as error:
            raise GradshardError(f"{self.where}, shard {shard}, {error}; {self._remedy}") from error

    def _check(self, shard: int, rows: Rows, values: Planes) -> None:
        planes = values.reshape(len(rows), 2, -1)
        illegal = bitplanes.illegal_rows(planes, self.manifest.dataset.pixels)
        if len(illegal):
            raise GradshardError(
                f"{self.where}, shard {shard}: row {int(rows[illegal[0]])} holds no signs; {self._remedy}"
            )

    def _checked(self, name: str) -> bytes:
        record = self.manifest.files[name]
        try:
            content = self.files.read(name, record.size + 1)
        except FileNotFoundError as error:
            raise self._missing(name) from error
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise GradshardError(
                f"{self.where}: shard file {name} is damaged (its SHA-256 is not the manifest's); {self._remedy}"
            )
        return content

    def _missing(self, name: str) -> GradshardError:
        return GradshardError(f"{self.where}: shard file {name} is missing; {self._remedy}")

    @property
    def _remedy(self) -> str:
        return "fetch the store again, or mend it by `gradshard store repair`"


def open_store(path: Path) -> SignStore:
    """Open a published store on this machine.

    Raises:
        GradshardError: nothing published is there, or its arrays do not fit its manifest.
    """
    return open_files(Folder(path), read_manifest(path), where=str(path))


def open_files(files: StoreFiles, manifest: Manifest, *, where: str, remote: bool = False) -> SignStore:
    """Open a published store whose manifest is known.

    Raises:
        GradshardError: its arrays are not those that the manifest describes.
    """
    for name in metadata_files(manifest.copies):
        try:
            content = files.read(name, sign_arrays.METADATA_LIMIT + 1)
        except FileNotFoundError as error:
            raise GradshardError(f"{where} has a manifest but no {name}: fetch it again") from error
        sign_arrays.check_metadata(name, content, manifest, where=where)
    return SignStore(where=where, manifest=manifest, files=files, remote=remote)
