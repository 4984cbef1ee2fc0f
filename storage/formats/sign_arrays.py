"""The Zarr arrays of a sign store: making, writing and checking them.

``signs`` is uint8 (N, 2, ceil(P / 8)), sharded, and ``signs-1``, ``signs-2``, ... further copies like it; ``labels`` is
unsigned (N,), one chunk for each shard of ``signs``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ShardingCodecIndexLocation, ZstdCodec

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes, manifest
from gradshard.storage.formats.chunking import Layout
from gradshard.storage.formats.dataset import label_dtype
from gradshard.storage.formats.manifest import StoreSpec
from gradshard.storage.formats.store_paths import signs_array

ENCODING = (
    "Bit planes, most significant bit first: plane 0 is sign > 0, plane 1 is sign == 0, so sign = 2 * plane0 + plane1 "
    "- 1; a row that was never written decodes to 2."
)

# An honest zarr.json has about 1,500 bytes.
METADATA_LIMIT = 1 << 16

_CODECS = [ZstdCodec(level=1), Crc32cCodec()]


def create_arrays(path: Path, spec: StoreSpec) -> None:
    """Create the group and its empty arrays at ``path``, where nothing may be yet."""
    rows, row_bytes = spec.dataset.rows, bitplanes.packed_bytes(spec.dataset.pixels)
    root = zarr.open_group(path, mode="w-", zarr_format=3)
    root.attrs.update(_group_attributes(spec))
    for copy in range(spec.copies):
        create_signs(root, signs_array(copy), spec.cut, row_bytes)
    labels = label_dtype(spec.dataset.classes)
    root.create_array(
        "labels",
        shape=(rows,),
        dtype=labels,
        chunks=(spec.layout.shard,),
        compressors=_CODECS,
        fill_value=int(np.iinfo(labels).max),
        dimension_names=("row",),
    )


def create_signs(group: zarr.Group, name: str, cut: Layout, row_bytes: int) -> zarr.Array[Any]:
    """Create the empty array of signs, whose planes take ``row_bytes`` bytes per row each."""
    return group.create_array(
        name,
        shape=(cut.rows, 2, row_bytes),
        dtype="uint8",
        chunks=(cut.chunk, 2, row_bytes),
        # The index first: a reader that cannot ask for the end of a file can still read the store.
        shards={"shape": (cut.shard, 2, row_bytes), "index_location": ShardingCodecIndexLocation.start},
        compressors=_CODECS,
        fill_value=bitplanes.FILL_BYTE,
        dimension_names=("row", "plane", "byte"),
    )


def write_shard(store: Path, rows: slice, *, planes: bitplanes.Planes, labels: bitplanes.Labels) -> None:
    """Write the files of the whole shard of these rows: its packed signs, (copies, n, 2, B), and its labels."""
    for name, values in (*((signs_array(copy), part) for copy, part in enumerate(planes)), ("labels", labels)):
        array = zarr.open_array(store / name, mode="r+").with_config({"write_empty_chunks": True})
        array[rows] = values


def check_metadata(name: str, content: bytes, spec: StoreSpec, *, where: str) -> None:
    """Check that a ``zarr.json`` describes the arrays that the manifest promises, and nothing else.

    Raises:
        GradshardError: it is too large, not JSON, or describes something else.
    """
    if len(content) > METADATA_LIMIT:
        raise GradshardError(f"{where}/{name} is larger than any metadata of a sign store: fetch the store again")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GradshardError(f"{where}/{name} is not the metadata of a Zarr array: fetch the store again") from error
    wrong = _difference(found, _expected(name, spec))
    if wrong:
        raise GradshardError(
            f"{where}/{name} does not fit the manifest ({wrong}): if a program such as zarr wrote to the store, "
            "`gradshard store repair` makes it again; else the store was put together wrongly: fetch it from somebody "
            "you trust"
        )


def _difference(found: object, expected: dict[str, object]) -> str | None:
    """Describe the first difference from the expected document, if there is one; null counts as a missing key."""
    if not isinstance(found, dict):
        return "it is no mapping"
    for key in sorted(found.keys() | expected.keys(), key=str):
        # As JSON: True and 1, or 1.0 and 1, are equal in Python, but not the same document.
        if json.dumps(found.get(key), sort_keys=True) != json.dumps(expected.get(key), sort_keys=True):
            return f"its key {str(key)[:40]!r}"
    return None


def _expected(name: str, spec: StoreSpec) -> dict[str, object]:
    if name == "zarr.json":
        return {"attributes": _group_attributes(spec), "zarr_format": 3, "node_type": "group"}
    codecs: list[object] = [
        {"name": "bytes"},
        {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        {"name": "crc32c"},
    ]
    if name == "labels/zarr.json":
        dtype = label_dtype(spec.dataset.classes)
        if dtype.itemsize > 1:
            codecs[0] = {"name": "bytes", "configuration": {"endian": "little"}}
        return _array((spec.dataset.rows,), (spec.layout.shard,), dtype, codecs, ("row",))
    planes = (2, bitplanes.packed_bytes(spec.dataset.pixels))
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [spec.layout.chunk, *planes],
            "codecs": codecs,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "start",
        },
    }
    shape, shard = (spec.dataset.rows, *planes), (spec.layout.shard, *planes)
    return _array(shape, shard, np.dtype(np.uint8), [sharding], ("row", "plane", "byte"))


def _array(
    shape: tuple[int, ...],
    grid: tuple[int, ...],
    dtype: np.dtype[np.unsignedinteger],
    codecs: list[object],
    names: tuple[str, ...],
) -> dict[str, object]:
    return {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": int(np.iinfo(dtype).max),
        "codecs": codecs,
        "attributes": {},
        "dimension_names": list(names),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _group_attributes(spec: StoreSpec) -> dict[str, Any]:
    copies = {"copies": spec.copies} if spec.copies > 1 else {}
    return {
        "format": manifest.FORMAT,
        "version": manifest.VERSION,
        "encoding": ENCODING,
        "sample_shape": list(spec.dataset.sample_shape),
        **copies,
    }
