"""The ledger of a sign store that is being built."""

from collections.abc import Mapping
from pathlib import Path

from gradshard.storage.formats import receipts
from gradshard.storage.formats.manifest import FileRecord


class Receipt(receipts.ShardReceipt):
    """Receipt of a finished shard: its files, the digest of its decoded content, how many signs and rows are 0."""

    files: dict[str, FileRecord]
    content: str
    zeros: int
    zero_rows: int

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of each file of the shard, by its name in the store."""
        return {name: record.size for name, record in self.files.items()}


class Ledger(receipts.Ledger[Receipt]):
    """The receipts of a store's finished shards."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Receipt)
