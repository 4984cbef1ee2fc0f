"""Datasets and sign stores: opened by path or URL, written, verified, audited."""

import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gradshard.pipeline.audit import store as auditing
from gradshard.pipeline.audit.consent import check_attack
from gradshard.pipeline.audit.store import StoreAudit
from gradshard.pipeline.gradients.loss import step_sign
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.loading.logits import Logits, Output, check_eval, count_classes, normalised
from gradshard.pipeline.loading.places import check_target
from gradshard.pipeline.loading.rows import Transform, as_rows
from gradshard.pipeline.loading.rows_split import rows_split
from gradshard.pipeline.models.precision import settings_kept
from gradshard.pipeline.models.tensors import device_of
from gradshard.pipeline.types import Gradient, LabelPolicy
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.checkpoints import tensors_digest
from gradshard.storage.formats.dataset import Dataset, Split
from gradshard.storage.formats.labelled_rows import LabelledRows
from gradshard.storage.formats.manifest import DirectionRecord, Manifest, ModelRecord, check_word
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.formats.sign_writer import StoreBuilder, make_spec
from gradshard.storage.maintenance import verify as verifying
from gradshard.storage.maintenance.verify import Fault
from gradshard.storage.remote import dataset_cache
from gradshard.storage.remote.cache import open_place
from gradshard.storage.remote.location import files_at

CACHE = Path(".partial/stores")
CACHE_BYTES = 10 << 30

_TRIED = 8


def open_dataset(place: str | Path, *, cache: Path = CACHE, cache_bytes: int = CACHE_BYTES) -> Dataset:
    """Open the dataset, made by `gradshard prepare`, at a path or URL; the images of a remote one are read when needed.

    Args:
        place: such as ``data/mnist5k.zarr`` or ``s3://bucket/mnist5k.zarr``.
        cache: the folder that keeps what was read from remote datasets; it may be deleted at any time.
        cache_bytes: the most bytes kept there of one dataset.

    Raises:
        GradshardError: there is no dataset, it is not valid, or the connection failed.
    """
    return dataset_cache.open_dataset(str(place), cache, cache_bytes)


def open_signs(place: str | Path, *, cache: Path = CACHE, cache_bytes: int = CACHE_BYTES) -> SignStore:
    """Open the sign store at a path or URL; of a remote one only the manifest is read now.

    Args:
        place: such as ``signs/A.zarr`` or ``s3://bucket/A.zarr``.
        cache: the folder that keeps what was read from remote stores; it may be deleted at any time.
        cache_bytes: the most bytes kept there of one store.

    Raises:
        GradshardError: there is no store, it is not valid, or the connection failed.
    """
    return open_place(str(place), cache, cache_bytes)


def write_signs(
    path: str | Path,
    signs: npt.NDArray[np.int8],
    split: Split,
    *,
    model: nn.Module,
    name: str,
    labels: npt.NDArray[np.int64] | None = None,
    gradient: Gradient = "exact",
    label: LabelPolicy = "true",
) -> Manifest:
    """Write signs that were computed elsewhere as a sign store, whole or not at all.

    Args:
        path: the store's folder, such as ``signs/mine.zarr``, which must not exist yet.
        signs: -1, 0 or 1, int8 (N, C, H, W) or (N, C·H·W), of all rows of the split in its order.
        split: the rows, such as ``open_dataset(...).train``.
        model: the model of the gradients; its parameters' digest goes into the manifest.
        name: the name of the model.
        labels: the labels that the gradients were taken for, (N,); by default the true ones.
        gradient: which gradient the signs are of.
        label: the policy by which the labels were chosen.

    Raises:
        GradshardError: the folder exists or cannot be written, the signs or labels do not fit the split, or another
            argument is not valid.
    """
    if not isinstance(split, Split):
        raise GradshardError(f"split is a {type(split).__name__}: give one of a dataset's, such as its train")
    check_word(name, what="name")
    for what, word, known in (("gradient", gradient, get_args(Gradient)), ("label", label, get_args(LabelPolicy))):
        if word not in known:
            raise GradshardError(f"{what} is {word!r}: give one of {', '.join(known)}")
    check_target(path)
    target, flat = Path(path), signs.reshape(len(signs), -1)
    _check_signs(target, flat, split)
    chosen = split.read_labels() if labels is None else np.asarray(labels)
    if not np.issubdtype(chosen.dtype, np.integer):
        raise GradshardError(f"labels are {chosen.dtype}: give the numbers of classes, as integers")
    if chosen.shape != (len(split),) or chosen.min() < 0 or chosen.max() >= split.classes:
        raise GradshardError(f"labels must be {len(split)} numbers from 0 to {split.classes - 1}")
    digest = tensors_digest(dict(model.state_dict()), name)
    spec = make_spec(
        split,
        ModelRecord(name=name, architecture=name, digest=digest, weights_sha256=digest),
        DirectionRecord(gradient=gradient, label=label, mode="eval", dtype="float32", step=step_sign(label)),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        builder = StoreBuilder(Path(folder), spec)
        builder.create()
        for shard in builder.missing():
            rows = builder.layout.shard_rows(shard)
            builder.write_shard(shard, bitplanes.pack(flat[rows]), chosen[rows])
        _check_free(target)
        return builder.publish(target)


def verify(place: str | Path) -> list[Fault]:
    """Check every byte of the store at a path or URL; an intact one has no faults.

    Raises:
        GradshardError: there is no published store, or the connection failed.
    """
    return verifying.all_faults(*files_at(str(place)), advance=lambda shards: None)


@settings_kept()
def audit(
    store: str | Path | SignStore,
    split: Any,
    model: nn.Module,
    *,
    rows: int = 200,
    seed: int | None = None,
    attack: str | None = None,
    transform: Transform | None = None,
    columns: tuple[str, str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    output: Output | None = None,
) -> StoreAudit:
    """Compute random rows of a store again and compare; ``honest`` of the result is the verdict, and print shows it.

    Args:
        store: from ``open_signs`` or ``compute_signs``, or its path or URL.
        split: the rows that the store was made from: a split of ``open_dataset``, or a dataset as ``compute_signs``
            takes it, such as arrays (images, labels), which is read whole.
        model: the model that the store was made from, in eval mode.
        rows: how many rows to compute again.
        seed: the seed of the choice of rows; by default it is unpredictable.
        attack: the store's attack, where it is package.module:function or a library's: its code runs only if you name
            it.
        transform: as for ``compute_signs``, like the next four.
        columns: the columns of image and label.
        mean: subtracted from each channel before the model.
        std: what each channel is then divided by.
        output: a function that maps the model's output to logits.

    Raises:
        GradshardError: the store was made for other rows, a shard is missing or damaged, the store's attack is foreign
            code that you did not name, ``rows`` or ``seed`` is out of its range, or no store can be made from the
            dataset or the model.
    """
    if rows < 1:
        raise GradshardError(f"rows is {rows}, of which nothing can be told: compute one again at least")
    if seed is not None and seed < 0:
        raise GradshardError(f"seed is {seed}: give 0 or more, or None")
    store = _opened(store)
    check_attack(store.manifest, attack, where="the store", option="attack")
    check_eval(model)
    made_from = _made_from(store, split, transform, columns)
    logits = Logits(normalised(model, mean, std, channels=made_from.sample_shape[0]), output).eval()
    _check_classes(logits, made_from, store)
    plan = auditing.plan_audit(store, made_from, count=rows, seed=secrets.randbits(32) if seed is None else seed)
    return auditing.audit_store(plan, store, made_from, logits)


def _opened(store: str | Path | SignStore) -> SignStore:
    if isinstance(store, SignStore):
        return store
    if isinstance(store, str | os.PathLike):
        return open_signs(store)
    raise GradshardError(f"store is a {type(store).__name__}: give an open store, or the path or URL of one")


def _check_classes(model: Logits, rows: LabelledRows, store: SignStore) -> None:
    """Refuse a model that the store cannot have been made from, by a pass of the first images."""
    images = torch.from_numpy(rows.read_images(0, min(_TRIED, len(rows))))
    classes, wanted = count_classes(model, to_unit_range(images.to(device_of(model)))), store.manifest.dataset.classes
    if classes != wanted:
        raise GradshardError(
            f"the model has {classes} logits, but that of {store.where} had {wanted}: give the one that the store was "
            "made from"
        )


def _made_from(
    store: SignStore, dataset: Any, transform: Transform | None, columns: tuple[str, str] | None
) -> LabelledRows:
    """Return a dataset, given in any form, as the rows that a store was made from."""
    if isinstance(dataset, Split):
        return dataset
    try:
        found = as_rows(dataset, transform, columns)
    except GradshardError as error:
        raise GradshardError(f"{error}; of open_dataset take .train or .test") from error
    return rows_split(found, store.manifest.dataset, where=store.where)


def _check_free(target: Path) -> None:
    if target.exists():
        raise GradshardError(f"{target} is there: a published store is never changed; choose another path")


def _check_signs(target: Path, signs: npt.NDArray[np.int8], split: Split) -> None:
    _check_free(target)
    pixels = int(np.prod(split.sample_shape))
    if signs.dtype != np.int8 or signs.shape != (len(split), pixels):
        raise GradshardError(
            f"signs are {signs.dtype} {signs.shape}, but the split needs int8 ({len(split)}, {pixels}) or "
            f"({len(split)}, {', '.join(map(str, split.sample_shape))})"
        )
    if signs.min(initial=0) < -1 or signs.max(initial=0) > 1:
        raise GradshardError("signs hold other values than -1, 0 and 1: take the sign of the gradient")
