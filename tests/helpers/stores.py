"""Sign stores of random signs over a dataset on disk."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.dataset import Dataset
from gradshard.storage.formats.manifest import AttackRecord, DirectionRecord, ModelRecord, StoreSpec
from gradshard.storage.formats.sign_reader import SignStore, open_store
from gradshard.storage.formats.sign_writer import StoreBuilder, make_spec


def store_spec(dataset: Dataset, *, model: str = "M", attack: AttackRecord | None = None) -> StoreSpec:
    """Return the spec of a store of random signs over a dataset's training split."""
    return make_spec(
        dataset.train,
        ModelRecord(name=model, architecture="A", digest="0" * 64, weights_sha256="1" * 64),
        DirectionRecord(gradient="exact", label="predicted", mode="eval", dtype="float32", step=1, attack=attack),
    )


def random_signs(rows: int, pixels: int, *, seed: int) -> npt.NDArray[np.int8]:
    """Return random signs of -1, 0 and +1, about a tenth of them 0."""
    return np.random.default_rng(seed).choice(np.array([-1, 0, 1], dtype=np.int8), (rows, pixels), p=[0.45, 0.1, 0.45])


def build_store(
    folder: Path,
    dataset: Dataset,
    target: Path,
    *,
    seed: int = 0,
    model: str = "M",
    attack: AttackRecord | None = None,
) -> SignStore:
    """Build and publish a store of random signs, different ones in each copy of an attack."""
    builder = StoreBuilder(folder, store_spec(dataset, model=model, attack=attack))
    builder.create()
    copies = [random_signs(len(dataset.train), 784, seed=seed + 100 * copy) for copy in range(builder.spec.copies)]
    for shard in builder.missing():
        rows = builder.layout.shard_rows(shard)
        planes = np.stack([bitplanes.pack(signs[rows]) for signs in copies])
        builder.write_shard(shard, planes, dataset.train.read_labels(rows.start, rows.stop))
    builder.publish(target)
    return open_store(target)


def rand_fgsm_record(*, copies: int = 3) -> AttackRecord:
    """Describe RAND+FGSM in several copies, each after a random step of 0.05."""
    return AttackRecord(name="rand_fgsm", epsilon=0.3, alpha=0.05, seed=4, copies=copies)
