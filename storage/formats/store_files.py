"""Places that the files of a published store are read from."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


class ReadableFiles(Protocol):
    """The files of a store, by their names relative to it."""

    def read(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a file, at most.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...


class StoreFiles(ReadableFiles, Protocol):
    """Files that can be read in any order."""

    def open(self, name: str) -> BinaryIO:
        """Return a file, to be read in pieces.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """A store in a folder of this machine, found wherever the process goes."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.absolute())

    def read(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a file, at most."""
        with self.open(name) as file:
            return file.read(limit)

    def open(self, name: str) -> BinaryIO:
        """Return a file, to be read in pieces."""
        try:
            return (self.path / name).open("rb", buffering=0)
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(*error.args) from error
