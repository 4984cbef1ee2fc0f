"""What precomputing costs and when it has paid off: arithmetic on sizes and one measured rate.

A unit is one pass of one model over the training set: the forward pass and the backward pass to the inputs. A store
costs one. Without stores, each batch's source is run when it is needed: crafting by the sources' models costs
s / (s + 1) units an epoch for s of them, for every one is drawn on one batch in s + 1; crafting from all of them on
every batch, as the paper's code did, costs s.
"""

import math
from dataclasses import dataclass

from storage import layout
from storage.signs import bitplanes

# Measured on the signs of the paper's MNIST models, between 0.75 and 1.05; random signs take 1.2 at most.
BITS_PER_PIXEL = 1.05


@dataclass(frozen=True)
class Plan:
    """What the stores of all sources take.

    ``hours`` of computing in all; ``disk`` and ``memory`` (to hold the packed signs resident) in bytes; ``files`` and
    ``shards`` in all; ``chunk`` and ``shard`` in rows. The epochs are those of training after which the computing of
    the stores is less than the crafting they replace.
    """

    hours: float
    disk: int
    memory: int
    files: int
    shards: int
    chunk: int
    shard: int
    epochs_against_live: int
    epochs_against_all_sources: int


def plan(*, rows: int, pixels: int, sources: int, rate: float, bits: float = BITS_PER_PIXEL) -> Plan:
    """Plan the stores of ``sources`` models over ``rows`` images of ``pixels`` values (C·H·W).

    Args:
        rows: images of the training set.
        pixels: signs of an image.
        sources: how many models get a store.
        rate: signed gradients of one model computed in a second, images/s.
        bits: expected bits per sign on disk.
    """
    row_bytes = 2 * bitplanes.packed_bytes(pixels)
    cut = layout.plan(rows, row_bytes)
    return Plan(
        hours=sources * rows / rate / 3600,
        disk=math.ceil(sources * rows * pixels * bits / 8),
        memory=sources * rows * row_bytes,
        files=sources * (2 * cut.shards + 5),
        shards=sources * cut.shards,
        chunk=cut.chunk,
        shard=cut.shard,
        # s units before training, against s / (s + 1) each epoch.
        epochs_against_live=sources + 1,
        epochs_against_all_sources=1,
    )
