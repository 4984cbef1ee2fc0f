"""Data of the benchmarks: real digits as a dataset, and stores of random signs over it."""

from pathlib import Path

import numpy as np

from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.formats.manifest import DirectionRecord, LayoutRecord, ModelRecord
from gradshard.storage.formats.sign_reader import SignStore, open_store
from gradshard.storage.formats.sign_writer import StoreBuilder, make_spec
from gradshard.storage.ingest.sources import mnist5k


def dataset_of_digits(path: Path, *, rows: int) -> Split:
    """Return a training split of so many of the 4,000 digits, repeated where that is more; test images beside it."""
    splits = mnist5k().splits
    (images, labels), test = splits["train"], splits["test"]
    chosen = np.arange(rows) % len(images)
    data = {"train": (images[:][chosen], labels[chosen]), "test": test}
    for _ in write_dataset(path, name="digits", classes=10, splits=data):
        pass
    return open_dataset(path).train


def random_store(split: Split, folder: Path, *, name: str, seed: int = 0, shard: int | None = None) -> SignStore:
    """Return a published store of random signs, a tenth of them 0, over a split; ``shard`` is how many rows one has."""
    spec = make_spec(
        split,
        ModelRecord(name=name, architecture="A", digest="0" * 64, weights_sha256="1" * 64),
        DirectionRecord(gradient="exact", label="predicted", mode="eval", dtype="float32", step=1),
    )
    if shard is not None:
        spec = spec.model_copy(update={"layout": LayoutRecord(chunk=min(shard, spec.layout.chunk), shard=shard)})
    builder = StoreBuilder(folder / f"building-{name}", spec)
    builder.create()
    draws = np.random.default_rng(seed)
    for shard in builder.missing():
        rows = builder.layout.shard_rows(shard)
        shape = (rows.stop - rows.start, spec.dataset.pixels)
        signs = draws.choice(np.array([-1, 0, 1], dtype=np.int8), shape, p=[0.45, 0.1, 0.45])
        builder.write_shard(shard, bitplanes.pack(signs), split.read_labels(rows.start, rows.stop))
    builder.publish(folder / f"{name}.zarr")
    return open_store(folder / f"{name}.zarr")
