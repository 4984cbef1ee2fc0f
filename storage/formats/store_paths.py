"""The files of a sign store, by their names relative to its folder."""

MANIFEST = "manifest.json"
CARD = "README.md"
METADATA = ("zarr.json", "signs/zarr.json", "labels/zarr.json")
CROISSANT = "croissant.json"
ROWS = "rows.parquet"
# Stores from before these were written have neither.
DESCRIPTIONS = (CROISSANT, ROWS)
# Not in the manifest, which it is about: whoever vouches for a store adds it later.
SIGNATURE = "store.sig"


def signs_file(shard: int) -> str:
    """The file of a shard's signs."""
    return f"signs/c/{shard}/0/0"


def labels_file(shard: int) -> str:
    """The file of a shard's labels."""
    return f"labels/c/{shard}"


def shard_of(name: str) -> int | None:
    """The shard that a file belongs to; none for all others."""
    parts = name.split("/")
    return int(parts[2]) if len(parts) > 2 and parts[1] == "c" else None


def expected_files(shards: int) -> set[str]:
    """The names of all files of a store of so many shards, but its manifest and what only newer stores have."""
    return {CARD, *METADATA, *map(signs_file, range(shards)), *map(labels_file, range(shards))}
