"""The ledger of a store that is being built: one receipt for each shard that is done."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.files import write_text
from storage.signs.manifest import FileRecord


class Receipt(BaseModel):
    """What one finished shard is: its files, the digest of its decoded content, and how many signs are 0."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    shard: int
    files: dict[str, FileRecord]
    content: str
    zeros: int


class Ledger:
    """A folder of receipts. A receipt is written once the shard is on disk, so it survives what the shard survives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, receipt: Receipt) -> None:
        """Record that a shard is done."""
        write_text(self._path(receipt.shard), receipt.model_dump_json())

    def done(self, store: Path) -> dict[int, Receipt]:
        """The receipts, by shard, of the shards whose files are still there with the recorded size."""
        found = (_valid(path, store) for path in sorted(self._folder.glob("*.json")))
        return {receipt.shard: receipt for receipt in found if receipt is not None}

    def receipt(self, shard: int, store: Path) -> Receipt | None:
        """The receipt of one shard, if it is done."""
        return _valid(self._path(shard), store)

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:08d}.json"


def _valid(path: Path, store: Path) -> Receipt | None:
    try:
        receipt = Receipt.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    whole = all(_size(store / name) == file.size for name, file in receipt.files.items())
    return receipt if whole else None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None
