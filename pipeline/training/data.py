"""Batches of images, labels and signs as a step takes them, brought to the device."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradshard.pipeline.gradients.augmentation import CropFlip
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.random_step import DrawnStep, step_after
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.pipeline.training.config import TrainingRun
from gradshard.storage.errors import GradshardError
from gradshard.storage.streaming.reader import InMemoryReader, RawBatch, Reader
from gradshard.storage.streaming.shuffle import Rows
from gradshard.storage.streaming.windows import Request, Stores, names_of, of_turn

# The share of a device's free memory for resident rows; the rest is for the model and its activations.
_RESIDENT_SHARE = 0.5


@dataclass(frozen=True)
class RankSlice:
    """Rows of a step's whole batch that are here: all of them, unless there are several ranks or pieces."""

    total: int
    rows: slice

    @property
    def whole(self) -> bool:
        """Tell whether all rows are here."""
        return self.rows == slice(0, self.total)

    def of(self, values: Tensor) -> Tensor:
        """Return these rows of something that was drawn for the whole batch."""
        return values if self.whole else values[self.rows]


@dataclass(frozen=True)
class Origin:
    """Origin of a batch's images: epoch, rows in the dataset, int64 (n,), and how they were moved, if they were."""

    epoch: int = 0
    rows: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    views: CropFlip | None = None

    def view(self, values: Tensor) -> Tensor:
        """Crop and mirror values aligned with the images in the dataset, (n, C, H, W), as these images were."""
        return values if self.views is None else self.views.apply(values)

    def undo(self, values: Tensor, hidden: Tensor) -> Tensor:
        """Move values aligned with the batch's images, (n, C, H, W), back; ``hidden`` replaces what no view shows."""
        return values if self.views is None else self.views.undo(values, hidden)


@dataclass(frozen=True)
class Batch:
    """One step's rows on the device: images float32 (n, C, H, W) in [0, 1], labels int64 (n,).

    ``signs``, float32 (n, C, H, W), are the directions to step in by the stored signs, none if only the model crafts;
    if a step takes those of all S stores they are (S, n, C, H, W). ``epsilon`` is a number or float32 (n, 1, 1, 1).
    ``live`` says that the model itself crafts, alone or beside stores. ``random_steps`` are those that come before each
    store's signs, if any. ``origin`` is for methods that keep something of each image.
    """

    images: Tensor
    labels: Tensor
    part: RankSlice
    signs: Tensor | None = None
    epsilon: float | Tensor = 0.0
    live: bool = False
    random_steps: tuple[DrawnStep | None, ...] = ()
    origin: Origin = field(default_factory=Origin)

    def perturbed(self, chosen: Tensor | None = None) -> Tensor:
        """Return the chosen images, by default all, perturbed along the stored signs: float32 in the signs' shape.

        Args:
            chosen: which of the n images, bool (n,); only where the signs are those of one store.

        Raises:
            GradshardError: there are no signs, because the model itself crafts.
        """
        if self.signs is None:
            raise GradshardError("the batch has no stored signs, for it is the turn of the model itself to craft")
        images, signs, epsilon, drawn = self.images, self.signs, self.epsilon, self.random_steps
        if chosen is not None:
            images, signs = images[chosen], signs[chosen]
            drawn = tuple(None if step is None else step.of(chosen) for step in drawn)
            epsilon = epsilon[chosen] if isinstance(epsilon, Tensor) else epsilon
        if not any(drawn):
            return perturb(images, signs, epsilon)
        if signs.ndim == images.ndim:
            return step_after(images, signs, epsilon, drawn[0])
        return torch.stack([step_after(images, one, epsilon, step) for one, step in zip(signs, drawn, strict=True)])


def make_batch(raw: "StoredBatch", run: TrainingRun, step: int, part: RankSlice | None = None) -> Batch:
    """Turn the stored rows of a step into its batch: views, pixels, signs and epsilons.

    The rows are this rank's part of the step's batch, or another ``part``.
    """
    stores = run.stores(step)
    images, signs, drawn = raw.images, _signs(raw, run, stores), _random_steps(raw, run, stores, run.turn(step))
    part, views = part or rank_slice(run, step), None
    if run.augmentation:
        views = run.augmentation.draw(part.total, seed=run.seed, step=run.drawn(step))[part.rows]
        images, signs = views.apply(images), [views.apply(one) for one in signs]
        drawn = tuple(None if one is None else replace(one, noise=views.apply(one.noise)) for one in drawn)
    return Batch(
        images=to_unit_range(images),
        labels=raw.labels,
        part=part,
        signs=torch.stack(signs) if isinstance(stores, tuple) else signs[0] if signs else None,
        epsilon=_epsilon(run, step, part, images),
        live=run.live(step),
        random_steps=drawn,
        origin=Origin(run.drawn(step) // run.steps_per_epoch, raw.rows, views),
    )


def rank_slice(run: TrainingRun, step: int) -> RankSlice:
    """Return which rows of a step's batch are this rank's."""
    return RankSlice(run.batch_rows(step), run.ranks.part(run.batch_rows(step)))


def cut(raw: "StoredBatch", part: RankSlice, most: int | None) -> Iterator[tuple["StoredBatch", RankSlice]]:
    """Cut the rows of a part of a batch into even pieces of at most ``most`` rows, each with its place in the batch."""
    rows = len(raw.images)
    pieces = 1 if most is None else math.ceil(rows / most)
    for number in range(pieces):
        piece = slice(number * rows // pieces, (number + 1) * rows // pieces)
        planes = None if raw.planes is None else raw.planes[..., piece, :, :]
        place = slice(part.rows.start + piece.start, part.rows.start + piece.stop)
        yield StoredBatch(raw.rows[piece], raw.images[piece], raw.labels[piece], planes), RankSlice(part.total, place)


def _signs(raw: "StoredBatch", run: TrainingRun, stores: Stores) -> list[Tensor]:
    """Return the signs of each store that a step takes."""
    if raw.planes is None or run.adversary is None:
        return []
    parts = raw.planes if isinstance(stores, tuple) else raw.planes.unsqueeze(0)
    directions = (run.adversary.directions[name] for name in names_of(stores))
    return [unpack_signs(part, raw.images.shape, scale=way) for part, way in zip(parts, directions, strict=True)]


def _random_steps(raw: "StoredBatch", run: TrainingRun, stores: Stores, turn: int) -> tuple[DrawnStep | None, ...]:
    """Redraw the random steps that come before the signs of each store, if any do."""
    if run.adversary is None or not run.adversary.random_steps:
        return ()
    copies = (run.adversary.random_steps.get(name) for name in names_of(stores))
    steps = (of_turn(each, turn) if each else None for each in copies)
    shape, rows, device = raw.images.shape, raw.rows.tolist(), raw.images.device
    return tuple(None if one is None else one.draw(shape, rows, device) for one in steps)


def _epsilon(run: TrainingRun, step: int, part: RankSlice, images: Tensor) -> float | Tensor:
    if run.adversary is None:
        return 0.0
    drawn = run.adversary.epsilons(part.total, seed=run.seed, step=step)
    if drawn is None:
        return run.adversary.epsilon
    return part.of(torch.from_numpy(drawn)).view(-1, 1, 1, 1).to(images.device)


@dataclass(frozen=True)
class StoredBatch:
    """A ``RawBatch`` on the device: images uint8, labels int64, planes uint8 or none."""

    rows: Rows
    images: Tensor
    labels: Tensor
    planes: Tensor | None


def read(reader: Reader, requests: Iterable[Request], device: torch.device) -> Iterator[StoredBatch]:
    """Read batches onto a device; resident rows that fit there are copied once and then taken on the device."""
    if isinstance(reader, InMemoryReader) and device.type != "cpu" and _fits(reader, device):
        yield from _taken_there(reader, requests, device)
        return
    for raw in reader.read(requests):
        yield _moved(raw, device)


def _taken_there(reader: InMemoryReader, requests: Iterable[Request], device: torch.device) -> Iterator[StoredBatch]:
    images, labels = (torch.from_numpy(part).to(device) for part in (reader.images, reader.labels))
    planes = {name: [torch.from_numpy(copy).to(device) for copy in part] for name, part in reader.planes.items()}
    for request in requests:
        rows = _sent(request.rows, device)
        found = [of_turn(planes[name], request.turn)[rows] for name in names_of(request.store)]
        chosen = torch.stack(found) if isinstance(request.store, tuple) else found[0] if found else None
        yield StoredBatch(request.rows, images[rows], labels[rows], chosen)


def _moved(raw: RawBatch, device: torch.device) -> StoredBatch:
    planes = None if raw.planes is None else _sent(raw.planes, device)
    return StoredBatch(raw.rows, _sent(raw.images, device), _sent(raw.labels, device), planes)


def _sent(values: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy to the device without waiting for it, which needs pinned memory."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _fits(reader: InMemoryReader, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    size = reader.images.nbytes + sum(copy.nbytes for planes in reader.planes.values() for copy in planes)
    return size <= _RESIDENT_SHARE * free
