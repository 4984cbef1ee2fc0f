"""Costs of precomputing and when it has paid off: arithmetic on sizes and one measured rate.

A unit is one pass of one model over the training set: the forward pass and the backward pass to the inputs. A store
costs one. Without stores, each batch's source is run when it is needed: crafting by the sources' models costs
s / (s + 1) units an epoch for s of them, for every one is drawn on one batch in s + 1; crafting from all of them on
every batch, as the paper's code did, costs s.
"""

import math
from dataclasses import dataclass

from gradshard.storage.formats import bitplanes, chunking

# Measured on the signs of the paper's MNIST models, between 0.75 and 1.05; random signs take 1.2 at most.
BITS_PER_PIXEL = 1.05


@dataclass(frozen=True)
class Plan:
    """Costs of the stores of all sources.

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
    cut = chunking.plan(rows, row_bytes)
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


# A manifest names at most 32,768 files, two for each shard.
MOST_SHARDS = 16_000
# Of a window, in rows: below that, batches of neighbouring rows are visibly alike (docs/scale.md).
GOOD_WINDOW = 4096


@dataclass(frozen=True)
class Experiment:
    """Costs of a whole experiment on so many GPUs: all sizes in bytes, rates in bytes a second.

    ``dataset`` on disk, of ``dataset_shards`` files; ``stores`` per source, more than one where a manifest cannot name
    all shards; ``precompute_hours`` and ``training_hours`` on all GPUs; ``read_per_gpu`` is what training reads for
    each of them, ``read`` for all; ``memory_per_host`` holds the windows of its GPUs, each of ``window`` rows.
    """

    dataset: int
    dataset_shards: int
    stores: int
    precompute_hours: float
    training_hours: float
    read_per_gpu: float
    read: float
    hosts: int
    memory_per_host: int
    window: int


def experiment_cost(
    planned: Plan,
    *,
    rows: int,
    pixels: int,
    sources: int,
    gpus: int,
    gpus_per_host: int,
    train_rate: float,
    epochs: int,
    budget: int,
    bits: float = BITS_PER_PIXEL,
) -> Experiment:
    """Plan dataset, stores and training beyond one machine.

    Images are taken as stored without loss and not compressible. A batch reads its images, and its source's signs on
    s / (s + 1) of all batches; each GPU streams through ``budget`` bytes of windows of its own.

    Args:
        planned: the plan of the stores.
        rows: images of the training set.
        pixels: values of an image (C·H·W).
        sources: how many models have a store.
        gpus: that compute and train.
        gpus_per_host: of them in one machine.
        train_rate: images that one GPU trains on in a second.
        epochs: of training.
        budget: bytes that each GPU's reader may hold, the parameter ``streaming.memory``.
        bits: expected bits per sign on disk.
    """
    held = pixels + sources * 2 * bitplanes.packed_bytes(pixels)
    read_per_image = pixels + bits / 8 * pixels * sources / (sources + 1)
    images = chunking.plan(rows, pixels)
    return Experiment(
        dataset=rows * pixels,
        dataset_shards=images.shards,
        stores=math.ceil(planned.shards / sources / MOST_SHARDS),
        precompute_hours=planned.hours / gpus,
        training_hours=rows * epochs / (train_rate * gpus) / 3600,
        read_per_gpu=train_rate * read_per_image,
        read=gpus * train_rate * read_per_image,
        hosts=math.ceil(gpus / gpus_per_host),
        memory_per_host=min(gpus, gpus_per_host) * budget,
        window=min(rows, budget // (2 * held)),
    )
