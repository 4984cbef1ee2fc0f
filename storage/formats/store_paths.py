"""The files of a sign store, by their names relative to its folder."""

MANIFEST = "manifest.json"
CARD = "README.md"
METADATA = ("zarr.json", "signs/zarr.json", "labels/zarr.json")
CROISSANT = "croissant.json"
ROWS = "rows.parquet"
# Stores that were written before these existed have neither.
DESCRIPTIONS = (CROISSANT, ROWS)
# Not in the manifest, which it signs: whoever vouches for a store adds it later.
SIGNATURE = "store.sig"


def signs_array(copy: int) -> str:
    """Return the array of a copy's signs; the first one's has the same name as in a store of one copy."""
    return f"signs-{copy}" if copy else "signs"


def signs_file(shard: int, copy: int = 0) -> str:
    """Return the file of a shard's signs."""
    return f"{signs_array(copy)}/c/{shard}/0/0"


def labels_file(shard: int) -> str:
    """Return the file of a shard's labels, which all copies share."""
    return f"labels/c/{shard}"


def shard_files(shard: int, copies: int) -> list[str]:
    """Return the files of a shard: the signs of each copy, then the labels."""
    return [*(signs_file(shard, copy) for copy in range(copies)), labels_file(shard)]


def metadata_files(copies: int) -> tuple[str, ...]:
    """Return the metadata files of the group and of each array."""
    return (*METADATA, *(f"{signs_array(copy)}/zarr.json" for copy in range(1, copies)))


def shard_of(name: str) -> int | None:
    """Return the shard that a file belongs to; none if it belongs to no shard."""
    parts = name.split("/")
    return int(parts[2]) if len(parts) > 2 and parts[1] == "c" else None


def expected_files(shards: int, copies: int = 1) -> set[str]:
    """Return the names of all files of a store except its manifest, its signature and ``DESCRIPTIONS``."""
    return {CARD, *metadata_files(copies), *(name for shard in range(shards) for name in shard_files(shard, copies))}
