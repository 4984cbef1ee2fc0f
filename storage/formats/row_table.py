"""The rows of a sign store as a small Parquet file, for tools that read tables but not Zarr: row, label, shard.

It contains nothing that the store does not, and no part of gradshard reads it.
"""

from pathlib import Path

import numpy as np

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import atomic_path
from gradshard.storage.formats.dataset import label_dtype
from gradshard.storage.formats.manifest import StoreSpec
from gradshard.storage.formats.shard_reader import decode
from gradshard.storage.formats.store_paths import labels_file

_ROWS_PER_GROUP = 1 << 20


def write_row_table(store: Path, spec: StoreSpec, target: Path) -> None:
    """Write the number, the stored label and the shard of every row, atomically; equal labels give equal bytes.

    Args:
        store: the folder of the store's arrays, including all label files.
        spec: what the store is.
        target: the file, which is replaced.

    Raises:
        GradshardError: a label file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = np.arange(spec.dataset.rows, dtype=np.int64)
    labels = np.concatenate([_labels(store, spec, shard) for shard in range(spec.cut.shards)])
    table = pa.table({"row": rows, "label": labels, "shard": (rows // spec.layout.shard).astype(np.int32)})
    with atomic_path(target) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            row_group_size=_ROWS_PER_GROUP,
            use_dictionary=["label"],
            column_encoding={"row": "DELTA_BINARY_PACKED", "shard": "DELTA_BINARY_PACKED"},
        )


def _labels(store: Path, spec: StoreSpec, shard: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the labels of one shard's rows, int64 (n,)."""
    path, rows = store / labels_file(shard), spec.cut.shard_rows(shard)
    labels = np.empty(spec.layout.shard, dtype=label_dtype(spec.dataset.classes))
    try:
        decode(path.read_bytes(), labels.view(np.uint8))
    except (OSError, ValueError) as error:
        raise GradshardError(f"{path} is missing or damaged: mend it first") from error
    return labels[: rows.stop - rows.start].astype(np.int64)
