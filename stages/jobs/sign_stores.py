"""Sign stores, made shard by shard over a Dask cluster, for the stage ``precompute``."""

import functools
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from distributed import Client

from gradshard.pipeline.attacks.stored_direction import (
    check_direction,
    direction_record,
    measure_agreement,
    short_steps,
)
from gradshard.pipeline.attacks.stored_rows import Direction
from gradshard.pipeline.config.direction import direction_of
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.config.signs import SignsParams
from gradshard.pipeline.gradients.device_memory import limit_memory
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.console.output import bytes_text
from gradshard.stages.console.progress import echo, echo_waiting, progress
from gradshard.stages.jobs.compute_rows import compute_rows
from gradshard.stages.jobs.models import LoadedModel, load_model, static_weights_of
from gradshard.stages.machines.dask_cluster import dask_client, map_tasks, threads
from gradshard.stages.machines.device_memory import device_of, tell_microbatches
from gradshard.stages.machines.devices import on_all_devices
from gradshard.stages.project import paths
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.formats.manifest import Manifest, ModelRecord, StoreSpec, read_manifest
from gradshard.storage.formats.sign_receipts import Receipt
from gradshard.storage.formats.sign_writer import StoreBuilder, make_spec
from gradshard.storage.formats.store_paths import SIGNATURE
from gradshard.storage.workspace import root_for, workspace

# Threads of a process that may write shards while the others compute.
WRITERS = 1


@dataclass(frozen=True)
class ShardTask:
    """Inputs that a worker needs to compute shards: paths and digests, never the model itself.

    ``at_once`` is how many shards a process computes at once; without it, as many as it has threads. ``memory`` is how
    many bytes a pass through the model may take; without it, a share of the device's memory.
    """

    dataset: Path
    weights: Path
    device: str
    direction: Direction
    builder: StoreBuilder
    at_once: int | None = None
    memory: int | None = None


def precompute(params: Params, store: str, cluster: ClusterConfig) -> None:
    """Make a sign store of the parameters, or its missing shards, and publish it in signs/."""
    wanted = params.signs[store]
    data = open_dataset(paths.dataset(params))
    data.check_trainable()
    device = device_of(params)
    cluster = on_all_devices(cluster, device)
    file, architecture = static_weights_of(params, wanted.model)
    direction = direction_of(wanted, f"signs.{store}.attack")
    loaded = load_model(file, architecture, data, device, arithmetic=wanted.precision)
    _check_gradients(loaded, file, store, wanted)
    check_direction(direction, classes=data.classes)
    spec = store_spec(wanted, loaded, data.train, direction, device)
    target = paths.store(store)
    wait, root = echo_waiting(target), root_for(target)
    with workspace(f"precompute-{store}", spec.model_dump(), on_wait=wait, root=root) as work:
        if work.waited and _is_published(target, spec):
            echo(f"{target}: made by the other process")
            return
        tell_microbatches({wanted.model: loaded.module}, data.sample_shape, device)
        builder = StoreBuilder(work.folder.resolve(), spec)
        builder.create()
        task = ShardTask(
            dataset=paths.dataset(params).resolve(),
            weights=file.resolve(),
            device=device.type,
            direction=direction,
            builder=builder,
            at_once=threads(cluster, device.type),
            memory=params.memory,
        )
        with dask_client(cluster, device.type, spare=WRITERS) as client:
            compute_missing(task, store, client)
        zero_rows = builder.zero_rows()
        _check_zero_rows(zero_rows, len(data.train), store, wanted)
        signed = (target / SIGNATURE).exists()
        published = builder.publish(target)
    if signed and not (target / SIGNATURE).exists():
        echo(f"{target}: its signature was of another store, and is gone: sign this one by `gradshard store sign`")
    copies = f" in {published.copies} copies" if published.copies > 1 else ""
    size = f"{bytes_text(published.size)}, {published.bits_per_pixel:.3f} bits per pixel"
    zeros = f"{published.zero_fraction:.2%} zeros{_masked(zero_rows, len(data.train), published)}"
    echo(f"{target}: {published.dataset.rows} rows{copies}, {size}, {zeros}")
    _tell_of_short_steps(target, published)


def _tell_of_short_steps(target: Path, published: Manifest) -> None:
    if (warning := short_steps(published)) is not None:
        echo(f"{target}: {warning}")


def _check_gradients(loaded: LoadedModel, file: Path, store: str, wanted: SignsParams) -> None:
    """Refuse, before any work, a model whose gradient is undefined at one of a few images, or 0 at all of them."""
    found = loaded.gradients
    if found.undefined:
        raise GradshardError(
            f"{file}: the input gradient is NaN or infinite for {found.undefined} of {found.rows} images, so it has no "
            "sign: look for a norm, root or logarithm at 0 in the model's code"
        )
    if found.zero == found.rows:
        _check_zero_rows(found.zero, found.rows, store, wanted)


def _check_zero_rows(zero: int, rows: int, store: str, wanted: SignsParams) -> None:
    if zero > wanted.zero_rows * rows:
        raise GradshardError(
            f"the gradient of {wanted.model} is 0 in every pixel for {zero} of {rows} images, so their signs attack "
            "nobody: look for rounding or saturation in the model, or for gradient: cross_entropy, or set "
            f"signs.{store}.zero_rows to the share that may be"
        )


def _masked(zero: int, rows: int, published: Manifest) -> str:
    if not zero:
        return ""
    why = "the gradient is masked" if published.direction.attack is None else "the attack moved no pixel far enough"
    return f", and nothing else in {zero} rows ({zero / rows:.2%}), where {why}"


def compute_shard(task: ShardTask, shard: int) -> Receipt:
    """Compute and write one whole shard; safe to repeat, and to run beside others in threads and processes."""
    # When a worker dies, Dask repeats the tasks whose results it held.
    done = task.builder.ledger.receipt(shard, task.builder.store)
    if done is not None:
        return done
    opened = _open(task)
    rows = task.builder.layout.shard_rows(shard)
    with opened.turns:
        planes, labels = compute_rows(opened.model, opened.rows, rows, task.direction, torch.device(task.device))
    return task.builder.write_shard(shard, planes, labels)


class _Opened(NamedTuple):
    """Inputs that the shards of a store are computed from; ``turns`` limits how many are computed at once."""

    rows: Split
    model: LoadedModel
    turns: AbstractContextManager[object]


_opening = threading.Lock()


def _open(task: ShardTask) -> _Opened:
    with _opening:
        limit_memory(task.memory)
        return _open_once(task.dataset, task.weights, task.device, task.builder.spec, task.at_once)


@functools.lru_cache(maxsize=1)
def _open_once(dataset: Path, weights: Path, device: str, spec: StoreSpec, at_once: int | None) -> _Opened:
    if device == "cpu":
        # Shards are what runs in parallel: with one thread each, no result depends on the number of threads.
        torch.set_num_threads(1)
    data = open_dataset(dataset)
    loaded = load_model(weights, spec.model.architecture, data, torch.device(device), checked=True)
    if data.train.digest != spec.dataset.digest or loaded.digest != spec.model.digest:
        raise GradshardError(
            f"{dataset} or {weights} changed while signs of {spec.model.name} were computed: start again"
        )
    return _Opened(data.train, loaded, nullcontext() if at_once is None else threading.Semaphore(at_once))


def compute_missing(task: ShardTask, store: str, client: Client) -> None:
    """Compute every shard that has no receipt, over a Dask cluster; ``store`` is the name shown with the progress."""
    cut = task.builder.layout
    missing = task.builder.missing()
    if len(missing) < cut.shards:
        echo(f"going on: {cut.shards - len(missing)} of {cut.shards} shards are there")
    rows_left = sum(_rows(task, shard) for shard in missing)
    with progress(f"precompute {store}", cut.rows, "images", done=cut.rows - rows_left) as advance:
        for _, receipt in map_tasks(client, functools.partial(compute_shard, task), missing, what="shard"):
            advance(_rows(task, receipt.shard))


def _rows(task: ShardTask, shard: int) -> int:
    rows = task.builder.layout.shard_rows(shard)
    return int(rows.stop - rows.start)


def store_spec(
    wanted: SignsParams, loaded: LoadedModel, split: Split, direction: Direction, device: torch.device
) -> StoreSpec:
    """Describe a store that the parameters name, before it is computed."""
    agreement = measure_agreement(
        loaded.module,
        direction,
        len(split),
        lambda rows: (split.take_images(rows), split.read_labels()[rows]),
        device,
    )
    return make_spec(
        split,
        ModelRecord(
            name=wanted.model,
            architecture=loaded.architecture,
            digest=loaded.digest,
            weights_sha256=loaded.weights_sha256,
        ),
        direction_record(direction, agreement=agreement),
        licence=wanted.licence,
    )


def _is_published(target: Path, spec: StoreSpec) -> bool:
    try:
        published = read_manifest(target)
    except GradshardError:
        return False
    return all(getattr(published, name) == getattr(spec, name) for name in StoreSpec.model_fields)
