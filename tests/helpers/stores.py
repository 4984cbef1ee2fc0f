"""Sign stores of random signs over a dataset on disk."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.dataset import Dataset
from gradshard.storage.formats.manifest import DirectionRecord, ModelRecord, StoreSpec
from gradshard.storage.formats.sign_reader import SignStore, open_store
from gradshard.storage.formats.sign_writer import StoreBuilder, make_spec


def store_spec(dataset: Dataset, *, model: str = "M") -> StoreSpec:
    """The spec of a store of random signs over a dataset's training split."""
    return make_spec(
        dataset.train,
        ModelRecord(name=model, architecture="A", digest="0" * 64, weights_sha256="1" * 64),
        DirectionRecord(gradient="exact", label="predicted", mode="eval", dtype="float32", step=1),
    )


def random_signs(rows: int, pixels: int, *, seed: int) -> npt.NDArray[np.int8]:
    """Signs of -1, 0 and +1, a tenth of them 0."""
    return np.random.default_rng(seed).choice(np.array([-1, 0, 1], dtype=np.int8), (rows, pixels), p=[0.45, 0.1, 0.45])


def build_store(folder: Path, dataset: Dataset, target: Path, *, seed: int = 0, model: str = "M") -> SignStore:
    """Build and publish a store of random signs."""
    builder = StoreBuilder(folder, store_spec(dataset, model=model))
    builder.create()
    signs = random_signs(len(dataset.train), 784, seed=seed)
    for shard in builder.missing():
        rows = builder.layout.shard_rows(shard)
        builder.write_shard(shard, bitplanes.pack(signs[rows]), dataset.train.read_labels(rows.start, rows.stop))
    builder.publish(target)
    return open_store(target)
