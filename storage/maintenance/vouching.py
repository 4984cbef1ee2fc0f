"""Signing a store, and checking who signed it, in the format and with the library of OpenSSF's model signing.

No shard is read: the signed statement lists the SHA-256 of the manifest and of every file that the manifest names. So
the signature vouches for the manifest, and files are vouched for by checking them against the manifest.
"""

import base64
import contextlib
import datetime
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import manifest as openssf
from model_signing import signing, verifying
from model_signing._hashing.hashing import Digest
from OpenSSL import crypto

from gradshard.storage.errors import GradshardError, NotVouchedError
from gradshard.storage.formats.manifest import Manifest, is_canonical
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE
from gradshard.storage.maintenance.signatures import claimed_signer

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_BAD_KEY = (ValueError, TypeError, UnsupportedAlgorithm)


@dataclass(frozen=True)
class SigningKey:
    """Key that a store is signed with: the file of a private key and, if others trust certificates, their files.

    ``certificate`` is that of the key, and ``chain`` leads from it to an authority.
    """

    private_key: Path
    password: str | None = None
    certificate: Path | None = None
    chain: Sequence[Path] = ()


def sign(published: Manifest, content: bytes, key: SigningKey, *, where: str) -> bytes:
    """Return the signature of a store, a Sigstore bundle.

    Args:
        published: the store's manifest.
        content: the manifest's bytes.
        key: the signer's.
        where: the store's place, for messages.

    Raises:
        GradshardError: the key or a certificate cannot be used, or the manifest's text was changed.
    """
    if not is_canonical(content):
        raise GradshardError(f"{where}/{MANIFEST}: its text was changed: run `gradshard store repair {where}` first")
    _check_private_key(key)
    config = signing.Config().set_hashing_config(_KnownHashes(published, content))
    try:
        if key.certificate is None:
            password: Any = key.password.encode() if key.password else None
            config.use_elliptic_key_signer(private_key=key.private_key, password=password)
        else:
            _check_dates([_certificates(key.certificate)[0]], key.certificate)
            chain = [path for path in key.chain if _certificates(path)]
            config.use_certificate_signer(
                private_key=key.private_key, signing_certificate=key.certificate, certificate_chain=chain
            )
    except ValueError as error:
        raise GradshardError(f"{key.certificate or key.private_key} cannot sign: {error}") from error
    with tempfile.TemporaryDirectory(prefix="gradshard-sign-") as folder:
        config.sign(folder, Path(folder) / SIGNATURE)
        return (Path(folder) / SIGNATURE).read_bytes()


def check_signature(signature: bytes | None, published: Manifest, content: bytes, signer: Path, *, where: str) -> str:
    """Check that a store's signature is the signer's and is about this store, and name the signer.

    Args:
        signature: the bytes of the store's signature, if it has one.
        published: the store's manifest, whose digest was checked.
        content: the manifest's bytes.
        signer: a file with a public key (PEM), or with trusted certificates, one of which must be the signing
            certificate or have issued it.
        where: the store's place, for messages.

    Raises:
        NotVouchedError: the signer does not vouch for this store.
        GradshardError: the signer's file is neither a public key nor a certificate.
    """
    config, check = _trusted(signer)
    if signature is None:
        raise NotVouchedError(f"{where} is not signed, so {signer} does not vouch for it: ask its owner to sign it")
    config.set_hashing_config(_KnownHashes(published, content))
    try:
        check(signature)
        # The library prints remarks about old signatures.
        with tempfile.TemporaryDirectory(prefix="gradshard-sign-") as folder, contextlib.redirect_stdout(io.StringIO()):
            (Path(folder) / SIGNATURE).write_bytes(signature)
            config.verify(Path(folder), Path(folder) / SIGNATURE)
    except NotVouchedError as error:
        raise NotVouchedError(f"{where}: {signer} does not vouch for it: {error}") from error
    except Exception as error:  # an untrusted file can make the library raise many kinds of errors
        raise NotVouchedError(f"{where}: {signer} does not vouch for it: {_reason(error)}") from error
    return str(claimed_signer(signature))


class _KnownHashes:
    """The hashes of a store's files, from its manifest, because the library would read all files."""

    def __init__(self, published: Manifest, content: bytes) -> None:
        hashes = {name: record.sha256 for name, record in published.files.items()}
        self._hashes = {**hashes, MANIFEST: hashlib.sha256(content).hexdigest()}
        self._name = f"{published.model.name} over {published.dataset.name} ({published.dataset.split})"

    def hash(self, model_path: object, *, files_to_hash: object = None) -> Any:
        """Return the library's own form of a list of files and hashes."""
        del model_path, files_to_hash
        items = [
            openssf.FileManifestItem(path=PurePosixPath(name), digest=Digest("sha256", bytes.fromhex(sha256)))
            for name, sha256 in self._hashes.items()
        ]
        how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
        return openssf.Manifest(self._name, items, openssf.SerializationType.from_args(how))

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """Leave the list as it is: it holds the store's files and no other."""


def _trusted(signer: Path) -> tuple[Any, Callable[[bytes], None]]:
    """Return the library's verifier for a signer's file, and the check that is to be made besides."""
    text, config = _read(signer), verifying.Config()
    if b"-----BEGIN CERTIFICATE-----" in text:
        trusted = _certificates(signer)
        config.use_certificate_verifier(certificate_chain=[signer])
        return config, lambda signature: _check_chain_today(signature, trusted)
    try:
        key = serialization.load_pem_public_key(text)
    except _BAD_KEY as error:
        advice = "give the signer's public key (PEM), or a certificate"
        secret = " it is a private key:" if b"PRIVATE KEY-----" in text else ""
        raise GradshardError(f"{signer} holds no public key:{secret} {advice}") from error
    _check_curve(key, signer)
    config.use_elliptic_key_verifier(public_key=signer)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return config, lambda signature: _check_hint(signature, hashlib.sha256(pem).hexdigest())


def _check_hint(signature: bytes, fingerprint: str) -> None:
    material = json.loads(signature)["verificationMaterial"]
    if material.get("publicKey", {}).get("hint") != fingerprint:
        raise NotVouchedError(f"it is signed by {claimed_signer(signature)} and not by key {fingerprint[:16]}")


def _check_chain_today(signature: bytes, trusted: Sequence[x509.Certificate]) -> None:
    """Check that a signature's certificates are valid today.

    The library checks them as of the start of the signing certificate's validity, so that one that expired long ago
    passes; without a time stamp, nothing in a signature shows that it was made before the certificate expired.
    """
    material = json.loads(signature)["verificationMaterial"]
    if "x509CertificateChain" not in material:
        raise NotVouchedError(f"it is signed by {claimed_signer(signature)} and not with a certificate of that issuer")
    raw = [base64.b64decode(entry["rawBytes"]) for entry in material["x509CertificateChain"]["certificates"]]
    first, *chain = [crypto.X509.from_cryptography(x509.load_der_x509_certificate(each)) for each in raw]
    store = crypto.X509Store()
    for certificate in trusted:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    crypto.X509StoreContext(store, first, chain).verify_certificate()


def _check_private_key(key: SigningKey) -> None:
    if key.certificate is not None and key.password:
        raise GradshardError(f"{key.private_key}: with a certificate the private key must not be encrypted")
    try:
        password = key.password.encode() if key.password else None
        private = serialization.load_pem_private_key(_read(key.private_key), password)
    except TypeError as error:  # encrypted without a password, or the other way round
        raise GradshardError(f"{key.private_key}: {error}: set GRADSHARD_KEY_PASSWORD accordingly") from error
    except _BAD_KEY as error:
        advice = "make one by `openssl ecparam -name prime256v1 -genkey -noout`, or check GRADSHARD_KEY_PASSWORD"
        raise GradshardError(f"{key.private_key} holds no private key (PEM) that can be read: {advice}") from error
    _check_curve(private, key.private_key)


def _check_curve(key: object, path: Path) -> None:
    usable = isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and key.curve.name in _CURVES
    if not usable:
        raise GradshardError(f"{path} holds another kind of key than model signing knows: use one of {_CURVES}")


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except _BAD_KEY as error:
        raise GradshardError(f"{path} holds no certificate (PEM) that can be read: {error}") from error


def _check_dates(certificates: Sequence[x509.Certificate], path: Path) -> None:
    """Refuse to sign with a certificate that is not valid today."""
    now = datetime.datetime.now(datetime.UTC)
    for certificate in certificates:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            until = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
            raise GradshardError(f"{path} is valid from {until} only: sign with a certificate that is valid today")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GradshardError(f"{path} cannot be read: {error.strerror or error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidSignature):
        return "the signature does not fit what it is about, so one of the two was changed"
    if isinstance(error, crypto.X509StoreContextError):
        return f"its certificate is refused ({error})"
    if isinstance(error, ValueError) and "cannot be used for signing" in str(error):
        return "its certificate is not one for signing (digitalSignature or codeSigning)"
    if isinstance(error, ValueError) and str(error).startswith("Signature mismatch"):
        return "the signature is about another store, or about this one before it was changed"
    return f"{SIGNATURE} is no signature that can be read ({type(error).__name__})"
