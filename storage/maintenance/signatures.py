"""The signature in a store's folder: reading it, the signer that it claims, and the error if it does not hold.

It is a Sigstore bundle of OpenSSF's model signing (predicate https://model_signing/signature/v1.0) over the SHA-256 of
every file, including the manifest. ``vouching`` makes and checks signatures, which needs the library.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradshard.storage.errors import AlteredError, NotVouchedError
from gradshard.storage.formats.store_files import ReadableFiles
from gradshard.storage.formats.store_paths import SIGNATURE

# The signature of a store of 1,252 shards has 560 kB.
SIZE_LIMIT = 1 << 23

# So many characters of a fingerprint tell signers apart.
_SHOWN = 16


@contextmanager
def vouched_by(signer: Path | None) -> Iterator[None]:
    """Turn an error about altered bytes into one about ``signer`` not vouching for them, if there is a signer.

    Raises:
        NotVouchedError: bytes are not those of the store.
    """
    try:
        yield
    except AlteredError as error:
        if signer is None:
            raise
        raise NotVouchedError(f"{signer} does not vouch for it: {error}") from error


def read_signature(files: ReadableFiles) -> bytes | None:
    """Return the signature in a store's folder, unchecked; none if there is none.

    Raises:
        GradshardError: the connection failed.
        NotVouchedError: the file is too large to be a signature.
    """
    try:
        content = files.read(SIGNATURE, SIZE_LIMIT + 1)
    except FileNotFoundError:
        return None
    if len(content) > SIZE_LIMIT:
        raise NotVouchedError(f"{SIGNATURE} is larger than {SIZE_LIMIT >> 20} MiB, so it is no signature: remove it")
    return content


def is_bundle(content: bytes) -> bool:
    """Tell whether bytes look like a signature, and not like the page that a web server sends for what it lacks."""
    try:
        bundle = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(bundle, dict) and "verificationMaterial" in bundle


def claimed_signer(signature: bytes | None) -> str | None:
    """Name the signer that a signature claims, unchecked: ``key`` or ``certificate`` and its fingerprint.

    The fingerprint is the beginning of the SHA-256 of the public key's PEM text, or of the certificate's DER bytes.
    """
    if signature is None:
        return None
    try:
        material = json.loads(signature)["verificationMaterial"]
        if "publicKey" in material:
            return f"key {bytes.fromhex(material['publicKey']['hint']).hex()[:_SHOWN]}"
        chain = material.get("x509CertificateChain", {}).get("certificates")
        first = chain[0] if chain else material["certificate"]
        return f"certificate {hashlib.sha256(base64.b64decode(first['rawBytes'])).hexdigest()[:_SHOWN]}"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return f"nobody: {SIGNATURE} is no signature"


def signature_text(signature: bytes | None) -> str:
    """Describe a signature that nobody has checked yet, for a person."""
    signer = claimed_signer(signature)
    return "none" if signer is None else f"by {signer}, unchecked (`gradshard store verify --signer` checks it)"
