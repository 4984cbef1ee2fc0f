"""A check that a dataset is the one that a sign store was made for: with signs of other rows, training fails silently.

A store holds its dataset's digest, which covers pixels, labels and their order. To say which row differs takes the
hashes of the rows: those in the cache, where ``compute_signs`` and every whole check leave them, or those of a prepared
dataset.
"""

from pathlib import Path
from typing import Literal, get_args

from gradshard.pipeline.loading.fingerprint import fingerprint
from gradshard.pipeline.loading.places import locked
from gradshard.pipeline.loading.row_hashes import (
    OnRows,
    RowHashes,
    hash_rows,
    hash_sample,
    hash_split,
    load_hashes,
    sample_rows,
    save_hashes,
)
from gradshard.pipeline.loading.rows import Rows
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.digests import canonical_json, digest_of
from gradshard.storage.formats.manifest import DatasetRecord

Check = Literal["whole", "sample"]


def check_rows(
    rows: Rows,
    record: DatasetRecord,
    *,
    where: str,
    cache: Path,
    check: Check = "whole",
    reference: Path | None = None,
    workers: int = 0,
    on_rows: OnRows | None = None,
) -> None:
    """Check that a dataset's rows are those that a store was made for.

    ``whole`` reads every row once; a dataset that passed is remembered in the cache by its ``fingerprint`` and by 64 of
    its rows, so that the next time only these are read. ``sample`` always reads only these.

    Args:
        rows: the dataset.
        record: the store's record of the rows it was made for.
        where: the store's place, for messages.
        cache: the folder for what is remembered.
        check: all rows or a sample.
        reference: a prepared dataset, to name the first row that differs.
        workers: how many processes read.
        on_rows: called with the numbers of rows read and of all rows.

    Raises:
        GradshardError: a row differs, the number of rows differs, a row changes when it is read again, or there is no
            such check.
    """
    if check not in get_args(Check):
        raise GradshardError(f"check is {check!r}: give {' or '.join(get_args(Check))}")
    made_for = f"{where} was made for the {record.rows} rows of {record.name} ({record.split})"
    if len(rows) != record.rows:
        raise GradshardError(f"{made_for}, but the dataset has {len(rows)}: give that split, whole")
    image, _ = rows.read(0)
    if image.shape != record.sample_shape:
        raise GradshardError(
            f"{made_for}, images of {record.sample_shape} (C, H, W), but the dataset's are of {image.shape}: give the "
            "images as they were, and resize nothing"
        )
    # One of several ranks reads the dataset; the others then find it remembered.
    with locked(cache / f"checked-{record.digest[:16]}.lock"):
        known = load_hashes(cache, record) or _reference(reference, record)
        sample = sample_rows(len(rows))
        found = hash_sample(rows, sample)
        if known is not None:
            for row, its in zip(sample, found, strict=True):
                if its != known.of(row):
                    raise _differs(row, its, known, made_for)
        if check == "sample":
            if known is None:
                raise GradshardError(
                    f"nothing here knows the single rows that {where} was made for, so a sample proves nothing: check "
                    "them once by check='whole', or name the prepared dataset by reference="
                )
            return
        mark = _mark(rows, record, found, cache)
        if mark is None or not mark.exists():
            hashes = hash_rows(rows, workers=workers, on_rows=on_rows)
            _check_whole(hashes, record, known, made_for)
            remember(rows, record, hashes, found, cache)


def remember(rows: Rows, record: DatasetRecord, hashes: RowHashes, sample: list[bytes], cache: Path) -> None:
    """Remember that a dataset is the one of a record, and the hashes of its rows.

    Args:
        rows: the dataset.
        record: a store's record of the dataset.
        hashes: the hashes of all rows; their digest is the record's.
        sample: the hashes of the ``sample_rows``.
        cache: the folder for what is remembered.
    """
    save_hashes(cache, record.digest, hashes)
    mark = _mark(rows, record, sample, cache)
    if mark is not None:
        write_text(mark, canonical_json({"dataset": record.digest, "rows": len(rows)}) + "\n")


def _check_whole(hashes: RowHashes, record: DatasetRecord, known: RowHashes | None, made_for: str) -> None:
    if hashes.digest(record.classes) == record.digest:
        return
    row = None if known is None else hashes.first_difference(known)
    if known is None or row is None:
        raise GradshardError(
            f"{made_for}, digest {record.digest[:12]}, but the dataset's is {hashes.digest(record.classes)[:12]}: it "
            "holds other pixels or labels, or another order; name the prepared dataset by reference= to be told the "
            "first row that differs"
        )
    raise _differs(row, hashes.of(row), known, made_for)


def _differs(row: int, found: bytes, known: RowHashes, made_for: str) -> GradshardError:
    place = known.find(found)
    if place is not None:
        return GradshardError(
            f"{made_for}, but row {row} of the dataset is row {place} there: give the dataset unshuffled, and shuffle "
            "by the DataLoader or a sampler"
        )
    return GradshardError(
        f"{made_for}, but row {row} of the dataset has other pixels or another label: give the images and labels as "
        "they were, without a transform that the store's maker did not have"
    )


def _reference(path: Path | None, record: DatasetRecord) -> RowHashes | None:
    """Return the hashes of the prepared split that has the store's digest.

    Raises:
        GradshardError: the prepared dataset has no such split.
    """
    if path is None:
        return None
    data = open_dataset(path)
    for split in (data.train, data.test):
        if split.digest == record.digest:
            return hash_split(split)
    raise GradshardError(f"{path} is not the prepared dataset {record.name} that the store was made for: name that one")


def _mark(rows: Rows, record: DatasetRecord, sample: list[bytes], cache: Path) -> Path | None:
    """Return the file whose presence says that a dataset passed; None for a dataset without a fingerprint."""
    state = fingerprint(rows)
    if state is None:
        return None
    known_by = {"state": state, "rows": len(rows), "sample": b"".join(sample).hex(), "dataset": record.digest}
    return cache / f"checked-{digest_of(known_by)[:32]}.json"
