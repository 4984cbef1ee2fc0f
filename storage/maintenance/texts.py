"""The small files of a store, which are text: changes of line ends by git and editors can be undone."""

import hashlib
from pathlib import Path

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import FileRecord
from gradshard.storage.formats.store_paths import ROWS, shard_of

# With other line ends a text grows by one byte per line; no more than that is read.
_MOST_LINES = 1 << 16

LINE_ENDS = "only its line ends were changed, as git and editors do"


def read_limit(name: str, record: FileRecord) -> int:
    """Return how many bytes of a file to read, enough to notice that it is too long or has other line ends."""
    text = shard_of(name) is None and name != ROWS
    return record.size + (min(record.size, _MOST_LINES) if text else 0) + 1


def with_own_line_ends(content: bytes, record: FileRecord) -> bytes | None:
    """Return a text with its own line ends restored; none if that does not give the file that was published."""
    own = content.replace(b"\r\n", b"\n")
    return own if own != content and hashlib.sha256(own).hexdigest() == record.sha256 else None


def damaged(store: Path, name: str, record: FileRecord) -> GradshardError:
    """Return the error for a store's file that is missing or is not the one that was published."""
    path = store / name
    if not path.is_file():
        shard = shard_of(name)
        what = name if shard is None else f"{name}, of shard {shard}"
        remedy = f"mend it by `gradshard store repair {store}`, or fetch it again by `gradshard store pull`"
        return GradshardError(f"{store} lacks {what}: {remedy}")
    with path.open("rb") as file:
        content = file.read(read_limit(name, record))
    if shard_of(name) is None and with_own_line_ends(content, record) is not None:
        return GradshardError(f"{path} is damaged: {LINE_ENDS}: `gradshard store repair {store}` writes it anew")
    return GradshardError(f"{path} is damaged: mend the store by `gradshard store repair {store}` first")
