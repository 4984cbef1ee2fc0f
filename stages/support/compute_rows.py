"""Signs of rows, computed from a model: what ``precompute`` stores, and ``store repair`` makes again."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.end_direction import AttackSpec, Rows, end_directions, store_labels, to_signs
from gradshard.pipeline.gradients.microbatches import in_microbatches, rows_at_once
from gradshard.pipeline.gradients.packed import packed_signs, pieces
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.stages.support.models import LoadedModel
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Labels, Planes, packed_bytes
from gradshard.storage.formats.dataset import Split


def compute_rows(
    model: LoadedModel, split: Split, rows: slice, direction: GradientSpec | AttackSpec, device: torch.device
) -> tuple[Planes, Labels]:
    """The packed signs, uint8 (n, 2, ceil(P / 8)), of some rows, and the labels they were taken for, (n,).

    Those of an attack have its copies before the rows: (copies, n, 2, ceil(P / 8)).

    Besides what it returns, it never holds more than about 1 MiB or a microbatch of images, in whole chunks.

    Raises:
        GradshardError: a gradient is NaN or infinite, and has no sign; the sentence names the rows.
    """
    if isinstance(direction, AttackSpec):
        return _attack_rows(model, split, rows, direction, device)
    count, pixels = rows.stop - rows.start, math.prod(split.sample_shape)
    planes = np.empty((count, 2, packed_bytes(pixels)), dtype=np.uint8)
    chosen = np.empty(count, dtype=np.int64)
    at_once = rows_at_once(split.sample_shape, device, model.module)
    for some in pieces(rows, pixels=pixels, chunk=split.chunk, at_once=at_once):
        images = torch.from_numpy(split.read_images(some.start, some.stop)).to(device)
        labels = torch.from_numpy(split.read_labels(some.start, some.stop)).to(device)
        place = slice(some.start - rows.start, some.stop - rows.start)
        planes[place], chosen[place] = packed_signs(model.module, images, labels, direction, first=some.start)
    return planes, chosen


def _attack_rows(
    model: LoadedModel, split: Split, rows: slice, attack: AttackSpec, device: torch.device
) -> tuple[Planes, Labels]:
    count, pixels = rows.stop - rows.start, math.prod(split.sample_shape)
    planes = np.empty((attack.copies, count, 2, packed_bytes(pixels)), dtype=np.uint8)
    chosen = np.empty(count, dtype=np.int64)
    at_once = rows_at_once(split.sample_shape, device, model.module)
    for batch in attack.batches(np.arange(rows.start, rows.stop), at_once=at_once, total=len(split)):
        first, stop = int(batch[0]), int(batch[-1]) + 1
        images = torch.from_numpy(split.read_images(first, stop)).to(device)
        labels = torch.from_numpy(split.read_labels(first, stop)).to(device)
        # A batch of what is seeded may begin before these rows, and end after them.
        inside = slice(max(rows.start - first, 0), min(rows.stop, stop) - first)
        place = slice(first + inside.start - rows.start, first + inside.stop - rows.start)
        crafted = _attack_batch(model.module, images, labels, batch, attack)
        planes[:, place], chosen[place] = crafted[0][:, inside], crafted[1][inside]
    return planes, chosen


def _attack_batch(
    model: nn.Module, images: Tensor, labels: Tensor, batch: Rows, attack: AttackSpec
) -> tuple[Planes, Labels]:
    def craft(part: slice) -> tuple[Planes, Labels]:
        used = store_labels(model, images[part], labels[part], attack, rows=batch[part])
        copies = (
            end_directions(model, images[part], used, attack, rows=batch[part], copy=copy)
            for copy in range(attack.copies)
        )
        return np.stack([bitplanes.pack(to_signs(found, attack).cpu().numpy()) for found in copies]), used.cpu().numpy()

    # What is seeded draws for a batch as a whole.
    parts = [craft(slice(0, len(batch)))] if attack.seeded else in_microbatches(craft, images, model)
    return np.concatenate([planes for planes, _ in parts], axis=1), np.concatenate([used for _, used in parts])
