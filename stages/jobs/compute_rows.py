"""Computation of the signs of rows by a model, for ``precompute`` and ``store repair``."""

import math

import numpy as np
import torch

from gradshard.pipeline.attacks.end_direction import AttackSpec
from gradshard.pipeline.attacks.stored_rows import Direction, packed_piece, pieces
from gradshard.pipeline.gradients.microbatches import rows_at_once
from gradshard.stages.jobs.models import LoadedModel
from gradshard.storage.formats.bitplanes import Labels, Planes, packed_bytes
from gradshard.storage.formats.labelled_rows import LabelledRows


def compute_rows(
    model: LoadedModel, split: LabelledRows, rows: slice, direction: Direction, device: torch.device
) -> tuple[Planes, Labels]:
    """Return some rows' packed signs, uint8 (copies, n, 2, ceil(P / 8)), and the labels they were made for, int64 (n,).

    A store of gradients has one copy. Besides its results, this function never holds more images than about 1 MiB or a
    microbatch, in whole chunks.

    Raises:
        GradshardError: a gradient is NaN or infinite, so it has no sign; the message names the rows.
    """
    count, pixels = rows.stop - rows.start, math.prod(split.sample_shape)
    copies = direction.copies if isinstance(direction, AttackSpec) else 1
    planes = np.empty((copies, count, 2, packed_bytes(pixels)), dtype=np.uint8)
    chosen = np.empty(count, dtype=np.int64)
    at_once = rows_at_once(split.sample_shape, device, model.module)
    for piece in pieces(direction, rows, total=len(split), pixels=pixels, chunk=split.chunk, at_once=at_once):
        images = torch.from_numpy(split.read_images(piece.rows.start, piece.rows.stop)).to(device)
        labels = torch.from_numpy(split.read_labels(piece.rows.start, piece.rows.stop)).to(device)
        place = slice(piece.wanted.start - rows.start, piece.wanted.stop - rows.start)
        planes[:, place], chosen[place] = packed_piece(model.module, images, labels, direction, piece)
    return planes, chosen
