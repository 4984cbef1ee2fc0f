"""The manifest of a sign store: what it is, what it was made from, and the digest of every file.

It is written last, so a folder with a manifest is a whole store. It holds no time, host name or path: equal inputs
give an equal manifest. A manifest may be untrusted: what it declares is bounded before anything is read because of it,
and it can name only the files of a sign store.
"""

import json
import math
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from gradshard.storage.errors import AlteredError, GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.chunking import Layout
from gradshard.storage.formats.digests import digest_of
from gradshard.storage.formats.store_paths import DESCRIPTIONS, MANIFEST, expected_files, shard_files, shard_of

FORMAT: Literal["gradshard-signs"] = "gradshard-signs"
VERSION = 1

# The manifest of a store of 1,252 shards has 360 kB, that of 100,000 shards 26 MB.
SIZE_LIMIT = 1 << 25
# Each file has an entry of two values.
_ENTRIES_LIMIT = 1 << 18
_VALUES_LIMIT = 2 * _ENTRIES_LIMIT
# The error report of a wrong entry takes a hundred times the entry's memory.
_FEW = 1000
# The decoded bytes that one reader holds in memory.
SHARD_LIMIT = 1 << 30
# So many copies of a shard of 64 MiB take less than ``SHARD_LIMIT``.
COPIES_LIMIT = 15
# More than any attack makes; an untrusted manifest must not make an audit endless.
STEPS_LIMIT = 1000

_SHA256 = re.compile("[0-9a-f]{64}")
Sha256 = Annotated[str, Field(pattern=f"^{_SHA256.pattern}$")]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Positive = Annotated[int, Field(gt=0, lt=1 << 48)]
# Shown on terminals and in Markdown: no control characters, no markup.
Word = Annotated[str, Field(pattern=r"^[\w.@:+/-][\w.@:+/ ()-]{0,99}$")]
_WORDS = TypeAdapter(Word)


def check_word(word: str, *, what: str) -> None:
    """Refuse a name that a manifest cannot have.

    Raises:
        GradshardError: it is such a name; the message begins with ``what``.
    """
    try:
        # Not by Python's regular expressions, whose \w has more characters.
        _WORDS.validate_python(word)
    except ValidationError as error:
        raise GradshardError(
            f"{what} {word[:100]!r} is no name for a manifest: give 1 to 100 letters, digits, blanks and .@:+/-()"
        ) from error


class _Record(BaseModel):
    """A part of the manifest; unknown keys, which a later minor change may add, are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class DatasetRecord(_Record):
    """The rows the gradients were taken at; ``digest`` covers content and order."""

    name: Word
    split: Word
    digest: Sha256
    rows: Positive
    sample_shape: tuple[Positive, Positive, Positive]
    classes: Positive

    @property
    def pixels(self) -> int:
        """The number of signs of one row: C * H * W."""
        return math.prod(self.sample_shape)


class ModelRecord(_Record):
    """The static model; ``digest`` covers its architecture and parameters, ``weights_sha256`` their file."""

    name: Word
    architecture: Word
    digest: Sha256
    weights_sha256: Sha256


class AgreementRecord(_Record):
    """The share of signs that float64 gives too, over a sample of rows."""

    rows: Positive
    share: Annotated[float, Field(ge=0, le=1)]


class AttackRecord(_Record):
    """The attack whose end directions a store holds; parameters that it does not take are null.

    ``name`` is one of gradshard's, a library's (``torchattacks:DIFGSM``), or any ``package.module:function``; for the
    last two, ``code`` is the library's version or the SHA-256 of the function's file. The attack had size ``epsilon``,
    ``alpha`` of it at random, ``steps`` steps and further ``arguments``. A sign is 0 where the pixel moved less than
    ``threshold`` of the way that it could. The random parts of each of ``copies`` follow from ``seed``, row and copy.
    """

    name: Word
    epsilon: Annotated[float, Field(gt=0, le=1)] | None = None
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    steps: Annotated[int, Field(gt=0, le=STEPS_LIMIT)] | None = None
    arguments: dict[Word, bool | int | float | Word | None] = Field(default_factory=dict, max_length=_FEW)
    code: Word | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Count = 0
    copies: Annotated[int, Field(gt=0, le=COPIES_LIMIT)] = 1

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def text(self) -> str:
        """The attack in words."""
        strength = {"epsilon": self.epsilon, "alpha": self.alpha, "steps": self.steps, **self.arguments}
        return ", ".join([self.name, *(f"{key} {value}" for key, value in strength.items() if value is not None)])


class DirectionRecord(_Record):
    """Gradient whose sign was taken, and the way that an attack goes along it.

    ``gradient``: the loss it is the gradient of; ``label``: the label that this loss uses; ``mode``: the model's mode;
    ``dtype``: the arithmetic; ``step``: +1 if an attack adds epsilon times the sign, -1 if it subtracts it.
    ``agreement`` was measured if the arithmetic has less than single precision.

    In a store of an attack, ``gradient`` and ``label`` are those of the loss that the attack increases, and ``step`` is
    +1: its signs are the directions in which the pixels moved.
    """

    gradient: Word
    label: Word
    mode: Word
    dtype: Word
    step: Literal[1, -1]
    agreement: AgreementRecord | None = None
    attack: AttackRecord | None = None

    @model_serializer(mode="wrap")
    def _without_an_attack_that_is_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        return {key: value for key, value in dumped.items() if key != "attack" or value is not None}

    @property
    def agreement_text(self) -> str:
        """The agreement in words, to follow the arithmetic; empty if none was measured."""
        if self.agreement is None:
            return ""
        return f" ({self.agreement.share:.3%} as in float64, of {self.agreement.rows} rows)"


class LayoutRecord(_Record):
    """Rows per chunk and per shard."""

    chunk: Positive
    shard: Positive


class FileRecord(_Record):
    """One file of the store."""

    sha256: Sha256
    size: Count


def _without_wrong_entries(files: object) -> object:
    """Refuse the first file that is described wrongly: a report of all of them might take all memory.

    Raises:
        ValueError: a file is described wrongly.
    """
    for name, entry in files.items() if isinstance(files, dict) else ():
        if not isinstance(entry, FileRecord) and not _describes_a_file(entry):
            raise ValueError(f"describes the file {str(name)[:60]!a} by something else than sha256 and size")
    return files


def _describes_a_file(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    sha256, size = entry.get("sha256"), entry.get("size")
    return isinstance(sha256, str) and bool(_SHA256.fullmatch(sha256)) and type(size) is int and 0 <= size < 1 << 63


Files = Annotated[dict[str, FileRecord], BeforeValidator(_without_wrong_entries)]


class StoreSpec(_Record):
    """Description of a store before anything is computed. ``licence`` is an SPDX identifier, if its maker named one."""

    dataset: DatasetRecord
    model: ModelRecord
    direction: DirectionRecord
    layout: LayoutRecord
    licence: Word | None = None

    @property
    def cut(self) -> Layout:
        """Return the layout of the rows in chunks and shards."""
        return Layout(rows=self.dataset.rows, chunk=self.layout.chunk, shard=self.layout.shard)

    @property
    def copies(self) -> int:
        """The number of directions that a store holds for each row."""
        return 1 if self.direction.attack is None else self.direction.attack.copies

    @property
    def row_bytes(self) -> int:
        """The bytes of one row's packed signs, in one copy."""
        return 2 * bitplanes.packed_bytes(self.dataset.pixels)

    @property
    def signs(self) -> int:
        """The number of signs in all rows and copies."""
        return self.dataset.rows * self.dataset.pixels * self.copies

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        if self.layout.shard % self.layout.chunk:
            raise ValueError(f"a shard of {self.layout.shard} rows is no whole number of chunks")
        if self.copies * _shard_memory(self) > SHARD_LIMIT:
            raise ValueError(f"a shard would take more than {SHARD_LIMIT >> 20} MiB of memory")
        if self.dataset.classes > 1 << 32:
            raise ValueError("more classes than a label can tell apart")
        return self


class Manifest(StoreSpec):
    """Description of a published store.

    ``content`` is the digest of the decoded shards, whatever they are compressed with; ``digest``, the store's own
    name, covers everything else in the manifest, including the digests of all files.
    """

    format: Literal["gradshard-signs"]
    version: Count
    content: Sha256
    zeros: Count
    files: Files
    versions: dict[Word, Word] = Field(max_length=_FEW)
    digest: Sha256

    @property
    def zero_fraction(self) -> float:
        """The share of signs that are exactly 0."""
        return self.zeros / self.signs

    @property
    def size(self) -> int:
        """The bytes of all files that the manifest names."""
        return sum(record.size for record in self.files.values())

    @property
    def bits_per_pixel(self) -> float:
        """The stored size of signs and labels, in bits per sign."""
        shards = sum(record.size for name, record in self.files.items() if shard_of(name) is not None)
        return 8 * shards / self.signs

    @property
    def spec(self) -> StoreSpec:
        """Return the description of the store that was known before it was computed."""
        return StoreSpec(**{name: getattr(self, name) for name in StoreSpec.model_fields})

    def text(self) -> str:
        """Return the manifest file, byte for byte."""
        return _rendered(self.model_dump(mode="json"))

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        # The number first: the names of absurdly many shards are not even listed.
        least = len(expected_files(0, self.copies)) + len(shard_files(0, self.copies)) * self.cut.shards
        if len(self.files) not in (least, least + len(DESCRIPTIONS)):
            raise ValueError(f"names {len(self.files)} files, which is not what {self.cut.shards} shards have")
        described = set(DESCRIPTIONS) if len(self.files) > least else set()
        if self.files.keys() != expected_files(self.cut.shards, self.copies) | described:
            raise ValueError("names a file that is none of a sign store's")
        most = _most_bytes(self)
        largest = max(self.files.keys() - described, key=lambda name: self.files[name].size)
        if self.files[largest].size > most:
            raise ValueError(f"declares a larger file, {largest}, than any shard can be")
        for name in sorted(described):
            if self.files[name].size > _most_described(self):
                raise ValueError(f"declares a larger file, {name}, than so many rows and shards can have")
        if self.zeros > self.signs:
            raise ValueError("declares more zeros than signs")
        return self


def finalize(spec: StoreSpec, **fields: object) -> Manifest:
    """Return the manifest of a store, with its digest."""
    names = {"format": FORMAT, "version": VERSION, "digest": "0" * 64}
    unsealed = Manifest.model_validate({**dict(spec), **fields, **names}).model_dump(mode="json")
    del unsealed["digest"]
    return Manifest.model_validate_json(json.dumps({**unsealed, "digest": digest_of(unsealed)}))


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a store on this machine.

    Raises:
        GradshardError: there is no manifest, or this version cannot read it.
    """
    try:
        with (folder / MANIFEST).open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.is_file():
            raise GradshardError(
                f"{folder} is a file and no folder of a sign store: if `gradshard store export` wrote it, run "
                f"`gradshard store import {folder} TARGET`"
            ) from error
        raise GradshardError(
            f"no published sign store at {folder} (it has no {MANIFEST}): {_where_stores_are(folder)}"
        ) from error
    return parse_manifest(content, where=str(folder))


def _where_stores_are(folder: Path) -> str:
    below = next(folder.glob(f"*/{MANIFEST}"), None)
    if below is not None:
        return f"name one of the stores in it, such as {below.parent}"
    return "run `gradshard precompute` for it, or `dvc pull` it"


def parse_manifest(content: bytes, *, where: str) -> Manifest:
    """Check the bytes of a manifest; ``where`` is the store's place, for messages.

    Raises:
        GradshardError: this version cannot read the manifest, or it was changed after it was written.
    """
    path = f"{where}/{MANIFEST}"
    if len(content) > SIZE_LIMIT:
        raise AlteredError(f"{path} is larger than {SIZE_LIMIT >> 20} MiB, so it is no manifest of a sign store")
    if content.count(b",") > _VALUES_LIMIT:
        raise AlteredError(f"{path} is not a manifest of a sign store: it is something else, or too long")
    try:
        sealed = json.loads(content)
        if not isinstance(sealed, dict) or max(map(_entries, sealed.values()), default=0) > _ENTRIES_LIMIT:
            raise AlteredError(f"{path} is not a manifest of a sign store: it is something else, or too long")
        manifest = Manifest.model_validate_json(content)
        claimed = sealed.pop("digest")
        found = digest_of(sealed)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # Escaped, because an untrusted key is shown on a terminal.
        at = ".".join(str(part)[:60].encode("unicode_escape").decode() for part in first["loc"]) or "the file"
        raise AlteredError(f"{path} is not a manifest of a sign store: {at}: {first['msg'][:300]}") from error
    except (ValueError, RecursionError) as error:
        raise AlteredError(f"{path} is not a manifest of a sign store: it is no plain JSON") from error
    if manifest.version != VERSION:
        raise GradshardError(
            f"{where} is a sign store of format version {manifest.version}, and this gradshard reads version "
            f"{VERSION}: use a gradshard of that version"
        )
    if claimed != found:
        raise AlteredError(
            f"{path} was changed after it was written (its digest is {found[:12]}, it says {claimed[:12]}): fetch the "
            "store again"
        )
    return manifest


def canonical(content: bytes) -> bytes:
    """Return the bytes that a writer gives to a valid manifest of the same content."""
    return _rendered(json.loads(content)).encode()


def is_canonical(content: bytes) -> bool:
    """Tell whether the bytes of a valid manifest are exactly those that a writer gives it."""
    return canonical(content) == content


def _entries(value: object) -> int:
    return len(value) if isinstance(value, dict | list) else 0


def _rendered(document: object) -> str:
    return json.dumps(document, indent=1) + "\n"


def _shard_memory(spec: StoreSpec) -> int:
    """Return an upper bound of one copy's decoded shard: signs, labels, and what each chunk adds."""
    return spec.layout.shard * (spec.row_bytes + 8) + 128 * (spec.layout.shard // spec.layout.chunk)


def _most_described(spec: StoreSpec) -> int:
    """Return an upper bound of the bytes of the table of rows, and of the description of all files."""
    return (1 << 16) + 64 * spec.dataset.rows + 2048 * spec.cut.shards


def _most_bytes(spec: StoreSpec) -> int:
    """Return an upper bound of the bytes of any other file of a store, such as that of a shard."""
    return _shard_memory(spec) * 5 // 4 + (1 << 16)
