"""A dataset that is built from a folder of images, shard by shard, by any number of workers.

A build that was killed goes on with the shards that are missing or whose files changed. The order of the rows is fixed
before anything is decoded. If broken images are to be skipped, a first pass finds them all, and the shards that held
one are made again without them.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import dataset, dataset_writer
from gradshard.storage.formats.atomic import atomic_path, remove_strays, replace_folder, write_text
from gradshard.storage.formats.chunking import Layout
from gradshard.storage.formats.digests import RowsDigest, canonical_json
from gradshard.storage.ingest import file_index
from gradshard.storage.ingest.file_index import Entry, FileIndex
from gradshard.storage.ingest.folder_shards import Broken, SplitTask, files_of, receipt_of
from gradshard.storage.ingest.image_folder import ImageFolder
from gradshard.storage.ingest.row_order import Numbers, read_order, row_order, write_order
from gradshard.storage.ingest.walking import EXTENSIONS

SPLITS = ("train", "test")
_NAMES_A_GROUP = 1 << 12


class FolderBuilder:
    """Builder of a dataset from a folder of images, in a folder of its own.

    ``scan`` comes first; then, for each split, ``lay_out`` and the shards that are ``missing``; ``publish`` comes last.
    With ``skip``, a split is laid out again after each ``leave_out``, until its shards hold no broken images.
    """

    def __init__(self, folder: Path, source: ImageFolder, *, name: str, skip: bool) -> None:
        self._folder, self._source, self._name, self._skip = folder, source, name, skip
        self._store = folder / "store"
        self._tasks: dict[str, SplitTask] = {}
        self.passed_over: dict[str, Counter[str]] = {}

    def scan(self) -> None:
        """List the files of all splits.

        Raises:
            GradshardError: a class has no label or, in the training images, no image.
        """
        labels = {name: label for label, name in enumerate(self._source.class_names)}
        for split, folder in self._source.folders.items():
            passed_over = self.passed_over[split] = Counter()
            found = file_index.scan(self._source.root, folder, labels, passed_over) if folder else ()
            files = file_index.write_index(self._listing(split), found)
            if folder is not None:
                self._check_classes(folder, files)
            self._forget_changed(split, files)

    def without_images(self) -> list[str]:
        """List the classes that have no training image, if there are training images at all."""
        if self._source.train is None:
            return []
        counts = FileIndex(self._listing("train")).counts(len(self._source.class_names))
        return [name for name, count in zip(self._source.class_names, counts, strict=True) if not count]

    def attributes(self) -> dict[str, object]:
        """Return the dataset's attributes: its classes, the files its images were made from, and how they were made."""
        source = self._source
        files = {split: file_index.content_digest(FileIndex(self._listing(split))) for split in SPLITS}
        made = {**asdict(source.transform), "seed": source.seed, "folders": source.folders, "files": files}
        return {"class_names": list(source.class_names), "images": made}

    def lay_out(self, split: str) -> SplitTask:
        """Fix the order of a split's rows, and create its arrays; existing shards stay.

        Raises:
            GradshardError: all images of a split are broken.
        """
        files = FileIndex(self._listing(split))
        out = {broken.entry for broken in self.left_out(split)}
        numbers = np.array([number for number, entry in enumerate(files) if entry in out], dtype=np.int64)
        order = row_order(len(files), seed=(self._source.seed, SPLITS.index(split)), left_out=numbers)
        if len(files) and not len(order):
            folder = self._source.root / str(self._source.folders[split])
            raise GradshardError(f"{folder}: all {len(files)} images are broken, such as {min(out).file}")
        write_order(self._order(split), order)
        self._tasks[split] = SplitTask(
            root=self._source.root,
            listing=self._listing(split).resolve(),
            order=self._order(split).resolve(),
            store=(self._store / split).resolve(),
            ledger=(self._folder / f"ledger-{split}").resolve(),
            cut=self._make_arrays(split, len(order)),
            transform=self._source.transform,
        )
        return self._tasks[split]

    def missing(self, split: str) -> list[int]:
        """Return the shards that are still to be made."""
        task = self._tasks[split]
        return [shard for shard in range(task.cut.shards) if receipt_of(task, shard) is None]

    def leave_out(self, split: str, broken: Iterable[Broken]) -> None:
        """Record broken images, which get no row; the split must be laid out again afterwards."""
        self._write_broken(split, [*self.left_out(split), *broken])

    def left_out(self, split: str) -> list[Broken]:
        """Return the broken images that get no row, sorted by name."""
        if not self._skip or not self._broken(split).exists():
            return []
        records = json.loads(self._broken(split).read_text(encoding="utf-8"))
        return [Broken(Entry(*record["entry"]), record["reason"]) for record in records]

    def publish(self, target: Path) -> None:
        """Write the digests and the names of the files, and rename the dataset to ``target``.

        Raises:
            GradshardError: a shard is missing.
        """
        for split, task in self._tasks.items():
            digest = RowsDigest(sample_shape=task.transform.sample_shape, classes=len(self._source.class_names))
            for shard in range(task.cut.shards):
                receipt = receipt_of(task, shard)
                if receipt is None:
                    raise GradshardError(f"{target}: shard {shard} of {split} is missing: run the same command again")
                digest.update_hashed(bytes.fromhex(receipt.rows))
            skipped = [{"file": each.entry.file, "reason": each.reason} for each in self.left_out(split)]
            dataset_writer.seal_split(task.store, digest, {"skipped": skipped})
            _write_files(task.store / dataset.FILES, FileIndex(task.listing), read_order(task.order))
        self._make_root(self._store, self.attributes())
        remove_strays(self._store, keep=self._files())
        replace_folder(self._store, target)

    def _listing(self, split: str) -> Path:
        return self._folder / f"listing-{split}.arrow"

    def _order(self, split: str) -> Path:
        return self._folder / f"order-{split}"

    def _broken(self, split: str) -> Path:
        return self._folder / f"broken-{split}.json"

    def _write_broken(self, split: str, broken: Iterable[Broken]) -> None:
        records = [{"entry": list(each.entry), "reason": each.reason} for each in sorted(broken, key=_name)]
        write_text(self._broken(split), json.dumps(records))

    def _forget_changed(self, split: str, files: FileIndex) -> None:
        """Forget broken images that were removed or changed since, so that changed ones are tried again."""
        known = {each.entry: each for each in self.left_out(split)}
        if known:
            self._write_broken(split, [known[entry] for entry in files if entry in known])

    def _check_classes(self, folder: str, files: FileIndex) -> None:
        kinds = ", ".join(EXTENSIONS)
        if not len(files):
            raise GradshardError(f"{self._source.root / folder} holds no images ({kinds})")
        counts = files.counts(len(self._source.class_names))
        # Test images may lack classes; training images only those that a list of names has but no folder.
        for name, count in zip(self._source.class_names, counts, strict=True):
            if folder == self._source.train and not count and (self._source.root / folder / name).is_dir():
                path = self._source.root / folder / name
                raise GradshardError(f"{path} holds no images ({kinds}): put some there or remove the folder")

    def _make_root(self, path: Path, attributes: Mapping[str, object]) -> None:
        """Write the root group's own metadata; what is below it stays."""
        fresh = self._folder / "fresh"
        dataset_writer.create_root(fresh, name=self._name, classes=len(self._source.class_names), attributes=attributes)
        _move_metadata(fresh, path)

    def _make_arrays(self, split: str, rows: int) -> Layout:
        """Write the metadata of a split's arrays for ``rows`` rows; existing shards stay."""
        fresh, classes = self._folder / "fresh", len(self._source.class_names)
        dataset_writer.create_root(fresh, name=self._name, classes=classes)
        shape = self._source.transform.sample_shape
        cut = dataset_writer.create_split(fresh, split, rows=rows, sample_shape=shape, classes=classes)
        _move_metadata(fresh, self._store)
        return cut

    def _files(self) -> set[str]:
        """Return every file of the finished dataset."""
        names = {"zarr.json"}
        for split, task in self._tasks.items():
            shards = [file for shard in range(task.cut.shards) for file in files_of(shard)]
            metadata = ("zarr.json", "images/zarr.json", "labels/zarr.json", dataset.FILES)
            names |= {f"{split}/{file}" for file in (*metadata, *shards)}
        return names


def is_published(target: Path, attributes: Mapping[str, object]) -> bool:
    """Tell whether the dataset at ``target`` has the attributes that ``FolderBuilder.attributes`` gave."""
    try:
        found = zarr.open_group(target, mode="r").attrs.asdict()
    except (OSError, ValueError):
        return False
    return all(found.get(key) == json.loads(canonical_json(value)) for key, value in attributes.items())


def _name(broken: Broken) -> str:
    return broken.entry.file


def _write_files(path: Path, files: FileIndex, order: Numbers) -> None:
    """Write the file name of each row to a Parquet file of one column."""
    schema = pa.schema([("file", pa.string())])
    # Every name occurs once, so a dictionary would only take memory.
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, use_dictionary=False) as writer:
        for start in range(0, len(order), _NAMES_A_GROUP):
            names = [entry.file for entry in files.take(order[start : start + _NAMES_A_GROUP])]
            writer.write_table(pa.table([pa.array(names, pa.string())], schema=schema))


def _move_metadata(fresh: Path, store: Path) -> None:
    for path in fresh.rglob("zarr.json"):
        place = store / path.relative_to(fresh)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    shutil.rmtree(fresh)
