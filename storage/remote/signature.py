"""The signature of a store, wherever the store is."""

from pathlib import Path

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import Manifest
from gradshard.storage.formats.store_files import Folder, ReadableFiles
from gradshard.storage.maintenance.signatures import read_signature
from gradshard.storage.remote.causes import ConnectionBrokenError
from gradshard.storage.remote.location import is_url, open_location


def signature_at(place: str) -> bytes | None:
    """Return the signature of the store at a path or URL, unchecked; none if there is none.

    Raises:
        GradshardError: the connection failed.
    """
    return optional_signature(open_location(place) if is_url(place) else Folder(Path(place)))


def optional_signature(files: ReadableFiles) -> bytes | None:
    """Return a store's signature, unchecked; none if there is none, or the server refuses it.

    Servers that do not let files be listed, such as S3 over HTTPS, refuse missing files too. So a refused signature
    cannot be told from a missing one, and the store is read all the same.

    Raises:
        GradshardError: the connection failed.
    """
    try:
        return read_signature(files)
    except ConnectionBrokenError:
        raise
    except GradshardError:
        return None


def vouched_signature(
    files: ReadableFiles, manifest: Manifest, content: bytes, signer: Path | None, *, where: str
) -> bytes | None:
    """Return a store's signature, checked if there is a ``signer`` who must have made it.

    Args:
        files: the store's files.
        manifest: the store's.
        content: the manifest's bytes.
        signer: a file with a public key or certificates.
        where: the store's place, for messages.

    Raises:
        NotVouchedError: the signature is missing, another signer's, or about something else.
        GradshardError: the connection failed, or the signer's file cannot be used.
    """
    if signer is None:
        return optional_signature(files)
    from gradshard.storage.maintenance.vouching import check_signature

    signature = read_signature(files)
    check_signature(signature, manifest, content, signer, where=where)
    return signature
