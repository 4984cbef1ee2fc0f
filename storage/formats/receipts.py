"""The ledger of a build that goes shard by shard: one receipt for each finished shard.

A receipt is written only once its shard is on the disk. A build that was killed goes on with the shards that have no
receipt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gradshard.storage.formats.atomic import write_text


class ShardReceipt(BaseModel):
    """Receipt of one finished shard; subclasses add what publishing needs."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    shard: int

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of each file of the shard, by its name in the store."""
        raise NotImplementedError


R = TypeVar("R", bound=ShardReceipt)


class Ledger(Generic[R]):
    """A folder of receipts of one kind."""

    def __init__(self, folder: Path, kind: type[R]) -> None:
        self._folder, self._kind = folder, kind

    def add(self, receipt: R) -> None:
        """Record that a shard is done."""
        write_text(self._path(receipt.shard), receipt.model_dump_json())

    def forget(self, shard: int) -> None:
        """Remove a shard's receipt, before the shard is replaced."""
        self._path(shard).unlink(missing_ok=True)

    def done(self, store: Path) -> dict[int, R]:
        """Return the receipts, by shard, of the shards whose files are still there with the recorded size."""
        found = (self._valid(path, store) for path in sorted(self._folder.glob("*.json")))
        return {receipt.shard: receipt for receipt in found if receipt is not None}

    def receipt(self, shard: int, store: Path) -> R | None:
        """Return the receipt of one shard, if it is done."""
        return self._valid(self._path(shard), store)

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:08d}.json"

    def _valid(self, path: Path, store: Path) -> R | None:
        try:
            receipt = self._kind.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        whole = all(_size(store / name) == size for name, size in receipt.sizes().items())
        return receipt if whole else None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None
