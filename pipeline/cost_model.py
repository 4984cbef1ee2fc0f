"""Costs of precomputing sign stores and of training on them: arithmetic on sizes and rates.

A unit is one pass of one model over the training set: forward, and backward to the inputs. A store of gradients costs
one unit; a store of an attack costs, per copy, as many units as the attack makes passes per image. Without stores, each
batch's source is run when it is needed. With s sources that costs, per epoch, s / (s + 1) times as much as one copy of
one store, because every batch takes one of the s sources or the model itself; crafting from all sources on every batch,
as the paper's code did, costs s times as much as one copy.
"""

import math
from dataclasses import dataclass

from gradshard.storage.formats import bitplanes, chunking

# Measured on the signs of the paper's MNIST models, between 0.75 and 1.05; random signs take 1.2 at most.
BITS_PER_PIXEL = 1.05
# The most that was measured for the end directions of MI-FGSM and PGD (docs/transfer-defence.md), of 10 and 20 passes.
BITS_OF_MANY_STEPS = 1.95
# A manifest of this many files takes 29 MB of the 32 MiB that it may have. It lists, for each shard, the labels and
# every copy's signs.
_MOST_FILES = 200_000
# Rows of a window. In smaller ones, batches of neighbouring rows are visibly alike (docs/scale.md).
GOOD_WINDOW = 4096


@dataclass(frozen=True)
class Plan:
    """Costs of dataset, stores and training on some GPUs: sizes in bytes, rates in bytes per second.

    Stored signs: ``bits`` per sign; an attack's signs in ``copies`` copies, each made with ``passes`` passes per image.

    Stores: ``hours`` of one GPU in all, ``precompute_hours`` on all GPUs; ``disk`` and ``memory`` (to hold the packed
    signs resident); ``files`` and ``shards`` in all; ``chunk`` and ``shard`` in rows; ``stores`` per source, more than
    one where a manifest cannot name all shards. ``epochs_against_live`` and ``epochs_against_all_sources`` are the
    epochs of training after which the stores cost no more than the crafting that they replace: by one source per batch,
    or by all.

    Training: ``train_rate`` in images per second on one GPU; ``dataset`` on disk, in ``dataset_shards`` files;
    ``training_hours`` on all GPUs; training reads ``read_per_gpu`` per second for each GPU, ``read`` for all, and
    ``read_in_all`` from beginning to end, which is at most ``read_over_needed`` times what it needs. Computing the
    stores reads ``store_reads`` in all. ``memory_per_host`` holds the windows of a host's GPUs; all GPUs together hold
    ``window`` rows.
    """

    bits: float
    copies: int
    passes: int
    hours: float
    precompute_hours: float
    disk: int
    memory: int
    files: int
    shards: int
    chunk: int
    shard: int
    stores: int
    epochs_against_live: int
    epochs_against_all_sources: int
    train_rate: float
    dataset: int
    dataset_shards: int
    training_hours: float
    read_per_gpu: float
    read: float
    read_in_all: float
    store_reads: float
    read_over_needed: float
    hosts: int
    memory_per_host: int
    window: int


@dataclass(frozen=True)
class Prices:
    """Prices in any one currency: a GPU for an hour, 10^9 bytes kept for a month, and 10^9 bytes read."""

    gpu_hour: float
    gigabyte_month: float = 0.0
    gigabyte_read: float = 0.0


@dataclass(frozen=True)
class Bill:
    """Prices of computing the stores, of training, and of keeping dataset and stores for a month."""

    stores: float
    training: float
    month: float


def bill(planned: Plan, prices: Prices, *, gpus: int) -> Bill:
    """Price a plan for a number of GPUs; to compute the stores, each source reads all images once."""
    giga = 1e9
    return Bill(
        stores=planned.hours * prices.gpu_hour + planned.store_reads / giga * prices.gigabyte_read,
        training=planned.training_hours * gpus * prices.gpu_hour + planned.read_in_all / giga * prices.gigabyte_read,
        month=(planned.dataset + planned.disk) / giga * prices.gigabyte_month,
    )


def plan(
    *,
    rows: int,
    pixels: int,
    sources: int,
    rate: float,
    train_rate: float | None = None,
    epochs: int = 1,
    seeds: int = 1,
    gpus: int = 1,
    gpus_per_host: int = 1,
    budget: int = 4 << 30,
    bits: float | None = None,
    copies: int = 1,
    passes: int = 1,
) -> Plan:
    """Plan dataset, stores and training.

    Images are taken as stored without loss and not compressible. Every batch reads its images, and s / (s + 1) of the
    batches read their source's signs. The GPUs stream through windows that they share, of which each holds ``budget``
    bytes. In each window, every border between GPUs may cut a chunk for the batches of each source; such a chunk is
    read twice.

    Args:
        rows: images of the training set.
        pixels: values of an image (C·H·W), each of which has a sign.
        sources: how many models get a store.
        rate: signed gradients of one model that one GPU computes per second, images/s.
        train_rate: images that one GPU trains on per second; by default derived from ``rate``.
        epochs: epochs of training.
        seeds: how many models are trained on the same stores, each with its own seed.
        gpus: how many GPUs compute and train.
        gpus_per_host: GPUs in one machine.
        budget: bytes that each GPU's reader may hold, the parameter ``streaming.memory``.
        bits: expected bits per sign on disk; by default the measured number, which is higher for attacks of several
            passes.
        copies: copies of the attack, each with signs of its own.
        passes: passes of the model, forward and backward, that the attack makes for each image and copy.
    """
    if bits is None:
        bits = BITS_PER_PIXEL if passes == 1 else BITS_OF_MANY_STEPS
    if train_rate is None:
        # Per image, crafting costs 2 passes and half-batch training 3, plus 2 for every second image of own batches.
        train_rate = rate * 2 / (3 + 1 / (sources + 1))
    row_bytes = 2 * bitplanes.packed_bytes(pixels)
    cut, images = chunking.plan(rows, row_bytes), chunking.plan(rows, pixels)
    hours = sources * copies * passes * rows / rate / 3600
    window = min(rows, gpus * (budget // (2 * (pixels + sources * row_bytes))))
    twice = 0.0 if window == rows and gpus == 1 else cut.chunk * gpus * (sources + 1) / max(window, 1)
    needed = pixels + bits / 8 * pixels * sources / (sources + 1)
    read_per_gpu = train_rate * needed * (1 + twice)
    return Plan(
        bits=bits,
        copies=copies,
        passes=passes,
        hours=hours,
        precompute_hours=hours / gpus,
        disk=math.ceil(sources * copies * rows * pixels * bits / 8),
        memory=sources * copies * rows * row_bytes,
        files=sources * ((1 + copies) * cut.shards + 6 + copies),
        shards=sources * cut.shards,
        chunk=cut.chunk,
        shard=cut.shard,
        stores=math.ceil(cut.shards * (1 + copies) / _MOST_FILES),
        # K copies from s sources before training, against s / (s + 1) attacks in each epoch of each seed.
        epochs_against_live=math.ceil(copies * (sources + 1) / seeds),
        epochs_against_all_sources=math.ceil(copies / seeds),
        train_rate=train_rate,
        dataset=rows * pixels,
        dataset_shards=images.shards,
        training_hours=seeds * rows * epochs / (train_rate * gpus) / 3600,
        read_per_gpu=read_per_gpu,
        read=gpus * read_per_gpu,
        read_in_all=seeds * epochs * rows * needed * (1 + twice),
        store_reads=float(sources * rows * pixels),
        read_over_needed=1 + twice,
        hosts=math.ceil(gpus / gpus_per_host),
        memory_per_host=min(gpus, gpus_per_host) * budget,
        window=window,
    )
