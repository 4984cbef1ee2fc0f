"""The making of a sign store: pieces of a dataset are read in order, computed by threads, and written by shard."""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gradshard.pipeline.attacks.end_direction import AttackSpec
from gradshard.pipeline.attacks.stored_rows import Direction, Piece, packed_piece, pieces
from gradshard.pipeline.gradients.microbatches import rows_at_once
from gradshard.pipeline.loading.logits import Logits
from gradshard.pipeline.loading.row_hashes import OnRows, RowHashes, changing
from gradshard.pipeline.loading.rows import Rows, read_pieces
from gradshard.pipeline.malloc import keep_freed_memory
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes, chunking
from gradshard.storage.formats.bitplanes import Labels, Planes
from gradshard.storage.formats.dataset import Images
from gradshard.storage.formats.digests import row_hashes
from gradshard.storage.formats.manifest import StoreSpec
from gradshard.storage.formats.sign_reader import SignStore, open_store
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.workspace import root_for, workspace

# On another machine the last bits differ, and with them the ends of some attacks of many steps; of another model, half
# of the signs differ.
_SAME_SIGNS, _SAME_ENDS = 0.99, 0.9


@dataclass(frozen=True)
class Computer:
    """Threads that compute pieces of a direction; ``ahead`` is how many pieces may be pending.

    ``at_once`` is how many images pass through the model at once.
    """

    direction: Direction
    compute: Callable[[Piece, Images, Labels], tuple[Planes, Labels]]
    pool: ThreadPoolExecutor
    ahead: int
    at_once: int

    def cut(self, wanted: slice, *, total: int, sample_shape: tuple[int, ...]) -> list[Piece]:
        """Cut rows into pieces to read and compute at once, as ``precompute`` does: a store's bytes depend on it."""
        pixels = math.prod(sample_shape)
        chunk = chunking.plan(total, pixels).chunk
        return list(pieces(self.direction, wanted, total=total, pixels=pixels, chunk=chunk, at_once=self.at_once))

    def begin(self, piece: Piece, images: Images, labels: Labels) -> Future[tuple[Planes, Labels]]:
        """Begin to compute one piece."""
        return self.pool.submit(self.compute, piece, images, labels)


@dataclass(frozen=True)
class Making:
    """A store that is being made."""

    rows: Rows
    hashes: RowHashes
    spec: StoreSpec
    computer: Computer
    probe: Planes
    zero_rows: float
    workers: int
    on_rows: OnRows | None


def make(task: Making, target: Path) -> SignStore:
    """Make the store, finish one that was begun, or open one that is already made."""
    if target.exists():
        return _made_before(task, target)
    recipe = {**task.spec.model_dump(), "probe": hashlib.sha256(task.probe.data).hexdigest()}
    with workspace(f"compute-{target.stem}", recipe, on_wait=_wait_silently, root=root_for(target)) as work:
        if not (work.waited and target.exists()):
            builder = StoreBuilder(work.folder.resolve(), task.spec)
            builder.create()
            _fill(task, builder)
            if target.exists():  # it appeared meanwhile
                return _made_before(task, target)
            _check_zero_rows(builder.zero_rows(), task)
            builder.publish(target)
    return open_store(target)


def _check_zero_rows(zero: int, task: Making) -> None:
    if zero > task.zero_rows * len(task.rows):
        raise GradshardError(
            f"the signs are 0 in every pixel for {zero} of {len(task.rows)} images and attack nobody there: look for "
            'rounding or saturation in the model, or for gradient="cross_entropy", or set zero_rows= to the share that '
            "may be"
        )


def _fill(task: Making, builder: StoreBuilder) -> None:
    """Compute and write every shard that has no receipt."""
    missing, shape = builder.missing(), task.spec.dataset.sample_shape
    total = len(task.rows)
    rows = {shard: builder.layout.shard_rows(shard) for shard in missing}
    cut = {shard: task.computer.cut(wanted, total=total, sample_shape=shape) for shard, wanted in rows.items()}
    done = total - sum(wanted.stop - wanted.start for wanted in rows.values())
    results = _in_order(task, [piece for parts in cut.values() for piece in parts])
    for shard, parts in cut.items():
        found = [next(results) for _ in parts]
        labels = np.concatenate([used for _, used in found])
        builder.write_shard(shard, np.concatenate([planes for planes, _ in found], axis=1), labels)
        done += len(labels)
        if task.on_rows is not None:
            task.on_rows(done, total)


def _in_order(task: Making, cut: list[Piece]) -> Iterator[tuple[Planes, Labels]]:
    """Read pieces, compute several at once, and yield the planes and labels of each, in order."""
    waiting: deque[Future[tuple[Planes, Labels]]] = deque()
    read = read_pieces(task.rows, [piece.rows for piece in cut], workers=task.workers)
    for piece, (_, images, labels) in zip(cut, read, strict=True):
        waiting.append(task.computer.pool.submit(_checked, task, piece, images, labels))
        if len(waiting) > task.computer.ahead:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def check_unchanged(hashes: RowHashes, piece: slice, images: Images, labels: Labels) -> None:
    """Compare some rows with the hashes that they had when they were read before.

    Raises:
        GradshardError: a row differs.
    """
    again = row_hashes(images, labels) if images.shape[1:] == hashes.sample_shape else b""
    changed = hashes.first_change(piece, again)
    if changed is not None:
        raise changing(changed)


def _checked(task: Making, piece: Piece, images: Images, labels: Labels) -> tuple[Planes, Labels]:
    """Compute a piece, after checking that its rows are still those of the digest and its labels classes."""
    check_unchanged(task.hashes, piece.rows, images, labels)
    check_classes(range(piece.rows.start, piece.rows.stop), labels, task.spec.dataset.classes)
    return task.computer.compute(piece, images, labels)


def check_classes(rows: Sequence[int], labels: Labels, classes: int) -> None:
    """Check that the labels of some rows are classes of the model.

    Raises:
        GradshardError: one is not; the message names its row.
    """
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise GradshardError(
            f"row {rows[int(wrong[0])]} of the dataset has the label {int(labels[wrong[0]])}, but the model has "
            f"{classes} logits: give a model for these classes"
        )


def _made_before(task: Making, target: Path) -> SignStore:
    """Open what is at the target if it is this store.

    Raises:
        GradshardError: something else is there.
    """
    try:
        store = open_store(target)
    except GradshardError as error:
        raise GradshardError(f"{target} is there already and is no sign store: name another folder") from error
    if store.manifest.spec != task.spec or not _same_signs(task, store):
        raise GradshardError(
            f"{target} is there already and holds the signs of another model, dataset, gradient or attack: remove it, "
            "or name another folder"
        )
    return store


def _same_signs(task: Making, store: SignStore) -> bool:
    """Tell whether the signs of a store's first rows are those that were just computed."""
    there = np.stack([copy.read(0, task.probe.shape[1]) for copy in store.in_turn])
    ours, theirs = (bitplanes.unpack(planes, task.spec.dataset.pixels) for planes in (task.probe, there))
    least = _SAME_ENDS if isinstance(task.computer.direction, AttackSpec) else _SAME_SIGNS
    return bool((ours == theirs).mean() >= least)


def read_probe(rows: Rows, computer: Computer, sample_shape: tuple[int, ...]) -> tuple[Piece, Images, Labels]:
    """Read the first rows, whose signs show differences of models that no digest does, such as in ``output``."""
    first = slice(0, min(len(rows), computer.at_once))
    piece = computer.cut(first, total=len(rows), sample_shape=sample_shape)[0]
    return piece, *rows.read_many(range(piece.rows.stop))


@contextmanager
def computing(
    model: Logits,
    direction: Direction,
    device: torch.device,
    threads: int | None,
    sample_shape: tuple[int, ...],
) -> Iterator[Computer]:
    """Provide threads, each with a twin of the model and one torch thread; no result depends on their number."""
    keep_freed_memory()
    before = torch.get_num_threads()
    seeded = isinstance(direction, AttackSpec) and direction.seeded
    count = (threads or before) if device.type == "cpu" and not seeded else 1
    twins = deque(model.twin() for _ in range(count - 1))
    twins.append(model)

    def compute(piece: Piece, images: Images, labels: Labels) -> tuple[Planes, Labels]:
        twin = twins.popleft()
        try:
            pixels, true = (torch.from_numpy(part).to(device) for part in (images, labels))
            return packed_piece(twin, pixels, true, direction, piece)
        finally:
            twins.append(twin)

    alone = (lambda: torch.set_num_threads(1)) if device.type == "cpu" else None
    pool = ThreadPoolExecutor(count, "gradshard-signs", initializer=alone)
    try:
        # A seeded attack uses the process's generators: pieces are computed one at a time, and none is read meanwhile.
        ahead = 0 if seeded else 2 * count
        yield Computer(direction, compute, pool, ahead, at_once=rows_at_once(sample_shape, device, model))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _wait_silently(process: str) -> None:
    """Report nothing while another process makes the same store, which this one then opens."""
    del process
