"""Signs of rows, computed from a model: what ``precompute`` stores, and ``store repair`` makes again."""

import math

import numpy as np
import torch

from gradshard.pipeline.attacks.end_direction import AttackSpec, end_directions, store_labels, to_signs
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

    Besides what it returns, it never holds more than about 1 MiB or a batch of images, in whole chunks.

    Raises:
        GradshardError: a gradient is NaN or infinite, and has no sign; the sentence names the rows.
    """
    if isinstance(direction, AttackSpec):
        return _attack_rows(model, split, rows, direction, device)
    count, pixels = rows.stop - rows.start, math.prod(split.sample_shape)
    planes = np.empty((count, 2, packed_bytes(pixels)), dtype=np.uint8)
    chosen = np.empty(count, dtype=np.int64)
    for some in pieces(rows, pixels=pixels, chunk=split.chunk):
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
    for batch in attack.batches(np.arange(rows.start, rows.stop), pixels=pixels, total=len(split)):
        first, stop = int(batch[0]), int(batch[-1]) + 1
        images = torch.from_numpy(split.read_images(first, stop)).to(device)
        labels = torch.from_numpy(split.read_labels(first, stop)).to(device)
        # A batch of what is seeded may begin before these rows, and end after them.
        inside = slice(max(rows.start - first, 0), min(rows.stop, stop) - first)
        place = slice(first + inside.start - rows.start, first + inside.stop - rows.start)
        used = store_labels(model.module, images, labels, attack, rows=batch)
        chosen[place] = used[inside].cpu().numpy()
        for copy in range(attack.copies):
            found = end_directions(model.module, images, used, attack, rows=batch, copy=copy)
            planes[copy, place] = bitplanes.pack(to_signs(found, attack)[inside].cpu().numpy())
    return planes, chosen
