"""A folder of this machine that keeps as many files from elsewhere as fit."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock


@dataclass(frozen=True)
class BoundedFolder:
    """Files that were fetched, at most ``limit`` bytes in all, or the one file being read if that is larger.

    The least recently read files make room. Several processes may share the folder.
    """

    path: Path
    limit: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    def open(
        self,
        name: str,
        size: int | None,
        *,
        fetch: Callable[[Path], None],
        intact: Callable[[Path], bool] = lambda path: True,
    ) -> BinaryIO:
        """Open a file, fetched if it is not here yet.

        Args:
            name: of the file, relative to the folder.
            size: its bytes; if that is not known, others make room once it is here.
            fetch: writes the file to a path, whole or not at all.
            intact: tells whether a file that an earlier process left there is the right one; called once per file.
        """
        path = self.path / name
        # Making room could remove a file that another process is fetching; files that it has open stay readable.
        with self._lock, FileLock(self.path.with_suffix(".lock")):
            if not self._is_here(path, name, size, intact):
                self._make_room(size or 0)
                fetch(path)
                self._checked.add(name)
                if size is None:
                    self._make_room(0)
            file = path.open("rb")
            os.utime(file.fileno())
            return file

    def _is_here(self, path: Path, name: str, size: int | None, intact: Callable[[Path], bool]) -> bool:
        if not path.exists() or size not in (None, path.stat().st_size):
            return False
        if name not in self._checked and not intact(path):
            path.unlink()
            return False
        self._checked.add(name)
        return True

    def _make_room(self, size: int) -> None:
        kept = [(path, path.stat()) for path in self.path.rglob("*") if path.is_file()]
        surplus = sum(status.st_size for _, status in kept) + size - self.limit
        for path, status in sorted(kept, key=lambda entry: entry[1].st_mtime_ns):
            if surplus <= 0:
                return
            path.unlink()
            self._checked.discard(str(path.relative_to(self.path)))
            surplus -= status.st_size
