"""The packed signs of rows, of gradients or of an attack, the same wherever a store is made.

A store's bytes depend on how its rows are cut into pieces, so every way of making a store uses the pieces of this
module, and computes each piece separately.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from gradshard.pipeline.attacks.end_direction import AttackSpec, Rows, end_directions, store_labels, to_signs
from gradshard.pipeline.gradients import packed
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.packed import packed_signs
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Labels, Planes

Direction = GradientSpec | AttackSpec


@dataclass(frozen=True)
class Piece:
    """Rows that are read and computed at once, and those of them that are wanted."""

    rows: slice
    wanted: slice


def pieces(
    direction: Direction, wanted: slice, *, total: int, pixels: int, chunk: int, at_once: int
) -> Iterator[Piece]:
    """Yield the pieces to compute at once, which together cover the wanted rows.

    Args:
        direction: the direction to compute.
        wanted: the rows of a whole shard, or any others.
        total: the number of rows of the dataset.
        pixels: the number of pixels of a row.
        chunk: the number of rows of a chunk of the dataset.
        at_once: how many rows pass through the model at once.
    """
    if isinstance(direction, AttackSpec):
        for batch in direction.batches(np.arange(wanted.start, wanted.stop), at_once=at_once, total=total):
            # A batch of a seeded attack may begin before the wanted rows, and end after them.
            rows = slice(int(batch[0]), int(batch[-1]) + 1)
            yield Piece(rows, slice(max(rows.start, wanted.start), min(rows.stop, wanted.stop)))
    else:
        yield from (Piece(rows, rows) for rows in packed.pieces(wanted, pixels=pixels, chunk=chunk, at_once=at_once))


def packed_piece(
    model: nn.Module, images: Tensor, labels: Tensor, direction: Direction, piece: Piece
) -> tuple[Planes, Labels]:
    """Compute the packed signs of a piece.

    Args:
        model: a static model, in eval mode.
        images: all images of the piece, uint8 (n, C, H, W), on the model's device.
        labels: their true labels, int64 (n,), on the model's device.
        direction: the direction to compute.
        piece: the numbers of the rows.

    Returns:
        The planes of the m wanted rows, uint8 (copies, m, 2, ceil(P / 8)), in one copy for gradients; and the labels
        for which the signs were computed, int64 (m,).

    Raises:
        GradshardError: a gradient is NaN or infinite, or an attack from elsewhere fails.
    """
    if isinstance(direction, AttackSpec):
        planes, used = _packed_ends(model, images, labels, direction, np.arange(piece.rows.start, piece.rows.stop))
    else:
        found, used = packed_signs(model, images, labels, direction, first=piece.rows.start)
        planes = found[np.newaxis]
    inside = slice(piece.wanted.start - piece.rows.start, piece.wanted.stop - piece.rows.start)
    return planes[:, inside], used[inside]


def _packed_ends(
    model: nn.Module, images: Tensor, labels: Tensor, attack: AttackSpec, rows: Rows
) -> tuple[Planes, Labels]:
    def craft(part: slice) -> tuple[Planes, Labels]:
        used = store_labels(model, images[part], labels[part], attack, rows=rows[part])
        copies = (
            end_directions(model, images[part], used, attack, rows=rows[part], copy=copy)
            for copy in range(attack.copies)
        )
        return np.stack([bitplanes.pack(to_signs(found, attack).cpu().numpy()) for found in copies]), used.cpu().numpy()

    # A seeded attack draws for a batch as a whole.
    parts = [craft(slice(0, len(rows)))] if attack.seeded else in_microbatches(craft, images, model)
    return np.concatenate([planes for planes, _ in parts], axis=1), np.concatenate([used for _, used in parts])
