"""The manifest of a sign store: what it is, what it was made from, and the digest of every file.

It is written last, so a folder with a manifest is a whole store. It holds no time, host name or path: equal inputs
give an equal manifest.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.errors import GradshardError

FILE_NAME = "manifest.json"
FORMAT: Literal["gradshard-signs"] = "gradshard-signs"
VERSION = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]


class _Record(BaseModel):
    """A part of the manifest; keys that a later minor change may add are left alone."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class DatasetRecord(_Record):
    """The rows the gradients were taken at; ``digest`` covers content and order."""

    name: str
    split: str
    digest: Sha256
    rows: Positive
    sample_shape: tuple[Positive, Positive, Positive]
    classes: Positive

    @property
    def pixels(self) -> int:
        """The signs of one row: C * H * W."""
        channels, height, width = self.sample_shape
        return channels * height * width


class ModelRecord(_Record):
    """The static model; ``digest`` covers its architecture and parameters, ``weights_sha256`` the file they lay in."""

    name: str
    architecture: str
    digest: Sha256
    weights_sha256: Sha256


class DirectionRecord(_Record):
    """Which gradient was taken the sign of, and which way an attack steps along it.

    ``gradient``: the loss it is the gradient of; ``label``: whose label the loss was taken for; ``mode``: the model's
    mode; ``dtype``: the arithmetic; ``step``: +1 if an attack adds epsilon times the sign, -1 if it subtracts it.
    """

    gradient: str
    label: str
    mode: str
    dtype: str
    step: Literal[1, -1]


class LayoutRecord(_Record):
    """Rows per chunk and per shard."""

    chunk: Positive
    shard: Positive


class FileRecord(_Record):
    """One file of the store."""

    sha256: Sha256
    size: Count


class StoreSpec(_Record):
    """What a store will be, before anything is computed."""

    dataset: DatasetRecord
    model: ModelRecord
    direction: DirectionRecord
    layout: LayoutRecord


class Manifest(StoreSpec):
    """What a published store is. ``content`` is the digest of the decoded shards, whatever they are compressed with."""

    format: Literal["gradshard-signs"] = FORMAT
    version: int = VERSION
    content: Sha256
    zeros: Count
    files: dict[str, FileRecord]
    versions: dict[str, str]

    @property
    def zero_fraction(self) -> float:
        """The share of signs that are exactly 0."""
        return self.zeros / (self.dataset.rows * self.dataset.pixels)


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a store.

    Raises:
        GradshardError: there is none, or it is not one that this version reads.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GradshardError(
            f"no published sign store at {folder} (it has no {FILE_NAME}): run `gradshard precompute` for it, or "
            "`dvc pull` it"
        ) from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise GradshardError(f"{path} is not a manifest of a sign store: {where}: {first['msg']}") from error
    if manifest.version != VERSION:
        raise GradshardError(
            f"{folder} is a sign store of format version {manifest.version}, and this gradshard reads version "
            f"{VERSION}: use a gradshard of that version"
        )
    return manifest
