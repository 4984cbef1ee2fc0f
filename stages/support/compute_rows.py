"""Signs of rows, computed from a model: what ``precompute`` stores, and ``store repair`` makes again."""

import math

import numpy as np
import torch

from gradshard.pipeline.gradients.packed import packed_signs, pieces
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.stages.support.models import LoadedModel
from gradshard.storage.formats.bitplanes import Labels, Planes, packed_bytes
from gradshard.storage.formats.dataset import Split


def compute_rows(
    model: LoadedModel, split: Split, rows: slice, direction: GradientSpec, device: torch.device
) -> tuple[Planes, Labels]:
    """The packed signs, uint8 (n, 2, ceil(P / 8)), of some rows, and the labels they were taken for, (n,).

    Besides what it returns, it never holds more than about 1 MiB or a batch of images, in whole chunks.

    Raises:
        GradshardError: a gradient is NaN or infinite, and has no sign; the sentence names the rows.
    """
    count, pixels = rows.stop - rows.start, math.prod(split.sample_shape)
    planes = np.empty((count, 2, packed_bytes(pixels)), dtype=np.uint8)
    chosen = np.empty(count, dtype=np.int64)
    for some in pieces(rows, pixels=pixels, chunk=split.chunk):
        images = torch.from_numpy(split.read_images(some.start, some.stop)).to(device)
        labels = torch.from_numpy(split.read_labels(some.start, some.stop)).to(device)
        place = slice(some.start - rows.start, some.stop - rows.start)
        planes[place], chosen[place] = packed_signs(model.module, images, labels, direction, first=some.start)
    return planes, chosen
