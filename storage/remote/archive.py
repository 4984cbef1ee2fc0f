"""A store as one file: an uncompressed zip of its files, which zarr also opens as it is (``zarr.storage.ZipStore``).

An archive may come from a stranger, so nothing in it is trusted: besides manifest and signature it must hold the files
of the manifest and no others, each of the size and SHA-256 that the manifest promises.
"""

import errno
import hashlib
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gradshard.storage.errors import AlteredError, GradshardError
from gradshard.storage.formats.atomic import atomic_path
from gradshard.storage.formats.manifest import SIZE_LIMIT, Manifest, parse_manifest, read_manifest
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE
from gradshard.storage.maintenance.signatures import SIZE_LIMIT as SIGNATURE_LIMIT
from gradshard.storage.maintenance.signatures import vouched_by
from gradshard.storage.maintenance.texts import damaged
from gradshard.storage.remote.signature import vouched_signature
from gradshard.storage.remote.transfer import Arriving, check_digest, is_whole, receiving

Advance = Callable[[int], None]

_BLOCK = 1 << 20
# The bytes that one file may take in the table of contents; names have about 20 characters.
_ENTRY_LIMIT = 512
_LARGEST_DIRECTORY = 1 << 25
# The bytes of the records that end a zip file: 56 and 20 in large ones, 22 in all.
_ENDING = 56 + 20 + 22
# What the zipfile module raises for invalid bytes; for an offset before the file's start it raises OSError (EINVAL).
_NO_ARCHIVE = (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, ValueError)
_MOMENT = (1980, 1, 1, 0, 0, 0)


def export_archive(store: Path, target: Path, *, advance: Advance) -> Manifest:
    """Write a published store to one file; equal stores give equal files.

    Raises:
        GradshardError: the store lacks a file or is damaged, or the archive is there already.
    """
    manifest = read_manifest(store)
    if target.exists():
        raise GradshardError(f"{target} is there already: remove it or choose another name")
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        signed = [SIGNATURE] if (store / SIGNATURE).is_file() else []
        for name in (MANIFEST, *signed, *manifest.files):
            if name in (MANIFEST, SIGNATURE):
                _add(archive, store / name, name)
                continue
            record = manifest.files[name]
            if not (store / name).is_file() or _add(archive, store / name, name) != record.sha256:
                raise damaged(store, name, record)
            advance(record.size)
    return manifest


def import_archive(
    source: Path,
    target: Path,
    *,
    digest: str | None,
    on_wait: Callable[[str], None],
    advance: Advance,
    signer: Path | None = None,
) -> Manifest:
    """Unpack an archive into the folder ``target``, which appears once every file is what the manifest promises.

    Args:
        source: the archive.
        target: the folder that it becomes.
        digest: the digest that the store must have, or the first characters of it.
        on_wait: see ``workspace``.
        advance: called with the number of further bytes that are in place.
        signer: a file with the public key or certificates of the signer who must have signed the store.

    Raises:
        NotVouchedError: ``signer`` did not sign what is in the archive.
        GradshardError: it is not an archive of one whole store, or not of the one of ``digest`` or of ``target``.
    """
    if source.is_dir():
        raise GradshardError(
            f"{source} is a folder and no archive: copy a store by `gradshard store pull {source} TARGET`"
        )
    try:
        _check_directory_size(source)
        with zipfile.ZipFile(source) as archive, vouched_by(signer):
            content = _manifest(archive, source)
            manifest = parse_manifest(content, where=str(source))
            check_digest(manifest, digest, where=str(source))
            _check_members(archive, manifest, source)
            signature = vouched_signature(_Members(archive), manifest, content, signer, where=str(source))
            arriving = Arriving(manifest, content, signature, vouched=signer is not None)
            with receiving("import", arriving, target, on_wait=on_wait) as folder:
                for name, record in manifest.files.items():
                    if not is_whole(folder / name, record):
                        _unpack(archive, name, record.sha256, folder / name, source)
                    advance(record.size)
    except (*_NO_ARCHIVE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise GradshardError(f"{source} is not a whole archive of a sign store ({error}): fetch it again") from error
    return manifest


@dataclass(frozen=True)
class _Members:
    """The files in an archive whose members were checked."""

    archive: zipfile.ZipFile

    def read(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a file, at most."""
        try:
            with self.archive.open(name) as member:
                return member.read(limit)
        except KeyError as error:
            raise FileNotFoundError(name) from error


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> str:
    """Add a file, with nothing in its entry but its name and bytes, and return its SHA-256."""
    entry = zipfile.ZipInfo(name, date_time=_MOMENT)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.create_system = 3
    sha256 = hashlib.sha256()
    with path.open("rb") as file, archive.open(entry, "w", force_zip64=path.stat().st_size >= 1 << 31) as member:
        while block := file.read(_BLOCK):
            sha256.update(block)
            member.write(block)
    return sha256.hexdigest()


def _manifest(archive: zipfile.ZipFile, source: Path) -> bytes:
    try:
        entry = archive.getinfo(MANIFEST)
    except KeyError as error:
        raise GradshardError(f"{source} holds no {MANIFEST}, so it is no archive of a sign store") from error
    _check_entry(entry, SIZE_LIMIT, source)
    with archive.open(entry) as file:
        return file.read(SIZE_LIMIT + 1)


def _check_members(archive: zipfile.ZipFile, manifest: Manifest, source: Path) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    strange = sorted(set(names) - {MANIFEST, SIGNATURE, *manifest.files})
    if strange:
        raise GradshardError(
            f"{source} holds {_shown(strange[0])}, which is no file of the store, so nothing was unpacked: get the "
            "archive from somebody you trust"
        )
    lacking = sorted(manifest.files.keys() - set(names))
    if lacking:
        raise GradshardError(f"{source} lacks {lacking[0]}: fetch it again")
    if len(names) > len(set(names)):
        raise GradshardError(f"{source} holds one name twice, so nothing was unpacked: get it from somebody you trust")
    for entry in entries:
        limits = {MANIFEST: SIZE_LIMIT, SIGNATURE: SIGNATURE_LIMIT}
        size = limits.get(entry.filename) or manifest.files[entry.filename].size
        _check_entry(entry, size, source)
        if entry.filename not in limits and entry.file_size != size:
            raise GradshardError(
                f"{source}: {entry.filename} has {entry.file_size} bytes where the manifest promises {size}, so "
                "nothing was unpacked: fetch it again"
            )


def _check_entry(entry: zipfile.ZipInfo, limit: int, source: Path) -> None:
    """Refuse an entry that is not a plain uncompressed file of a bounded size."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise GradshardError(f"{source}: {_shown(entry.filename)} is a link or no file, so nothing was unpacked")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1 or entry.compress_size != entry.file_size:
        raise GradshardError(
            f"{source}: {_shown(entry.filename)} is compressed or encrypted, which `gradshard store export` never "
            "does, so nothing was unpacked"
        )
    if entry.file_size > limit:
        raise GradshardError(f"{source}: {_shown(entry.filename)} is too large, so nothing was unpacked")


def _unpack(archive: zipfile.ZipFile, name: str, sha256: str, target: Path, source: Path) -> None:
    found = hashlib.sha256()
    with archive.open(name) as member, atomic_path(target) as temporary:
        with temporary.open("wb") as file:
            while block := member.read(_BLOCK):
                found.update(block)
                file.write(block)
        if found.hexdigest() != sha256:
            raise AlteredError(f"{source}: {name} is not the file of the manifest: fetch the archive again")


def _check_directory_size(source: Path) -> None:
    """Refuse a table of contents that is too large before it is read into memory (zip format, section 4.3)."""
    with source.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _ENDING))
        ending = file.read().rjust(_ENDING, b"\0")
    # A zip file that ends in a comment could hide a second ending in it; `gradshard store export` writes none.
    if ending[-22:-18] != b"PK\x05\x06" or ending[-2:] != b"\0\0":
        raise zipfile.BadZipFile("it does not end like one")
    entries, directory = struct.unpack_from("<HI", ending, _ENDING - 22 + 10)
    if ending[56:60] == b"PK\x06\x07":
        if ending[:4] != b"PK\x06\x06":
            raise zipfile.BadZipFile("it does not end like one")
        entries, directory = struct.unpack_from("<QQ", ending, 32)
    if directory > min(_LARGEST_DIRECTORY, _ENTRY_LIMIT * max(entries, 1)):
        raise zipfile.BadZipFile("its table of contents is too large")


def _shown(name: str) -> str:
    return ascii(name[:100])
