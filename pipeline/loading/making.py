"""A sign store on its way: pieces of a dataset read in order, computed by several threads, written shard by shard."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gradshard.pipeline.gradients.microbatches import rows_at_once
from gradshard.pipeline.gradients.packed import packed_signs
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.pipeline.loading.logits import Logits
from gradshard.pipeline.loading.places import work_root
from gradshard.pipeline.loading.row_hashes import OnRows, RowHashes, changing, row_pieces
from gradshard.pipeline.loading.rows import Rows, read_pieces
from gradshard.pipeline.malloc import keep_freed_memory
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.bitplanes import Labels, Planes
from gradshard.storage.formats.dataset import Images
from gradshard.storage.formats.digests import row_hashes
from gradshard.storage.formats.manifest import StoreSpec
from gradshard.storage.formats.sign_reader import SignStore, open_store
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.workspace import workspace

# Another machine's last bits differ; of another model half of the signs do.
_SAME_SIGNS = 0.99


@dataclass(frozen=True)
class Computer:
    """Threads that compute pieces, in their order; ``ahead`` is how many are on their way.

    ``at_once`` is how many images pass through the model at once.
    """

    compute: Callable[[slice, Images, Labels], tuple[Planes, Labels]]
    pool: ThreadPoolExecutor
    ahead: int
    at_once: int

    def begin(self, piece: slice, images: Images, labels: Labels) -> Future[tuple[Planes, Labels]]:
        """Begin to compute one piece, as all are computed."""
        return self.pool.submit(self.compute, piece, images, labels)


@dataclass(frozen=True)
class Making:
    """A store that is being made."""

    rows: Rows
    hashes: RowHashes
    spec: StoreSpec
    computer: Computer
    probe: Planes
    workers: int
    on_rows: OnRows | None


def make(task: Making, target: Path) -> SignStore:
    """Make the store, go on making it, or find it made."""
    if target.exists():
        return _made_before(task, target)
    recipe = {**task.spec.model_dump(), "probe": hashlib.sha256(task.probe.data).hexdigest()}
    with workspace(f"compute-{target.stem}", recipe, on_wait=_wait_silently, root=work_root(target)) as work:
        if not (work.waited and target.exists()):
            builder = StoreBuilder(work.folder.resolve(), task.spec)
            builder.create()
            _fill(task, builder)
            builder.publish(target)
    return open_store(target)


def _fill(task: Making, builder: StoreBuilder) -> None:
    """Compute and write every shard that has no receipt."""
    missing, shape = builder.missing(), task.spec.dataset.sample_shape
    total = len(task.rows)
    cut = {
        shard: row_pieces(
            builder.layout.shard_rows(shard), total=total, sample_shape=shape, at_once=task.computer.at_once
        )
        for shard in missing
    }
    done = total - sum(piece.stop - piece.start for parts in cut.values() for piece in parts)
    results = _in_order(task, [piece for parts in cut.values() for piece in parts])
    for shard, parts in cut.items():
        found = [next(results) for _ in parts]
        planes, labels = (np.concatenate(part) for part in zip(*found, strict=True))
        builder.write_shard(shard, planes, labels)
        done += len(labels)
        if task.on_rows is not None:
            task.on_rows(done, total)


def _in_order(task: Making, cut: list[slice]) -> Iterator[tuple[Planes, Labels]]:
    """Read pieces, compute some at once, and give what each has, in their order."""
    waiting: deque[Future[tuple[Planes, Labels]]] = deque()
    for piece, images, labels in read_pieces(task.rows, cut, workers=task.workers):
        waiting.append(task.computer.pool.submit(_checked, task, piece, images, labels))
        if len(waiting) > task.computer.ahead:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def check_unchanged(hashes: RowHashes, piece: slice, images: Images, labels: Labels) -> None:
    """Hold some rows against the hashes that were taken when they were read another time.

    Raises:
        GradshardError: one of them differs.
    """
    again = row_hashes(images, labels) if images.shape[1:] == hashes.sample_shape else b""
    changed = hashes.first_change(piece, again)
    if changed is not None:
        raise changing(changed)


def _checked(task: Making, piece: slice, images: Images, labels: Labels) -> tuple[Planes, Labels]:
    """Compute a piece whose rows are still those of the digest."""
    check_unchanged(task.hashes, piece, images, labels)
    wrong = np.flatnonzero(labels >= task.spec.dataset.classes)
    if len(wrong):
        raise GradshardError(
            f"row {piece.start + int(wrong[0])} of the dataset has the label {int(labels[wrong[0]])}, but the model "
            f"has {task.spec.dataset.classes} logits: give a model for these classes"
        )
    return task.computer.compute(piece, images, labels)


def _made_before(task: Making, target: Path) -> SignStore:
    """Open what is at the target if it is this store.

    Raises:
        GradshardError: it is something else.
    """
    try:
        store = open_store(target)
    except GradshardError as error:
        raise GradshardError(f"{target} is there already and is no sign store: name another folder") from error
    same = store.manifest.spec == task.spec
    if not same or (store.read(0, len(task.probe)) == task.probe).mean() < _SAME_SIGNS:
        raise GradshardError(
            f"{target} is there already and holds the signs of another model, dataset or gradient: remove it, or name "
            "another folder"
        )
    return store


def read_probe(rows: Rows, at_once: int) -> tuple[slice, Images, Labels]:
    """Read the first rows: their signs tell apart models that no digest does, such as by another ``output``."""
    piece = slice(0, min(len(rows), at_once))
    return piece, *rows.read_many(range(piece.stop))


@contextmanager
def computing(
    model: Logits,
    direction: GradientSpec,
    device: torch.device,
    threads: int | None,
    sample_shape: tuple[int, ...],
) -> Iterator[Computer]:
    """Threads, each with a twin of the model and one of torch's own: no result depends on how many there are."""
    keep_freed_memory()
    before = torch.get_num_threads()
    count = (threads or before) if device.type == "cpu" else 1
    twins = deque(model.twin() for _ in range(count - 1))
    twins.append(model)

    def compute(piece: slice, images: Images, labels: Labels) -> tuple[Planes, Labels]:
        twin = twins.popleft()
        try:
            pixels, true = (torch.from_numpy(part).to(device) for part in (images, labels))
            return packed_signs(twin, pixels, true, direction, first=piece.start)
        finally:
            twins.append(twin)

    alone = (lambda: torch.set_num_threads(1)) if device.type == "cpu" else None
    pool = ThreadPoolExecutor(count, "gradshard-signs", initializer=alone)
    try:
        yield Computer(compute, pool, ahead=2 * count, at_once=rows_at_once(sample_shape, device, model))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _wait_silently(process: str) -> None:
    """Another process makes the same store: this one opens what that one publishes."""
    del process
