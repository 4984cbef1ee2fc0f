"""Keys and certificates of people who sign stores."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_TODAY = datetime.datetime.now(datetime.UTC)
_YEAR = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Signer:
    """Files of a key pair."""

    private: Path
    public: Path


@dataclass(frozen=True)
class Certified:
    """Files of a key, its certificate, the intermediate one, and the authority's."""

    private: Path
    certificate: Path
    chain: Path
    authority: Path


def key_pair(folder: Path, name: str, *, password: str | None = None) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = Signer(folder / f"{name}.pem", folder / f"{name}.pub")
    signer.private.write_bytes(_private(key, password))
    public = key.public_key()
    signer.public.write_bytes(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return signer


def certified(folder: Path, name: str, *, age: datetime.timedelta = _YEAR / 2, signs: bool = True) -> Certified:
    """Return a key whose certificate is valid for a year that began ``age`` ago."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    root = _certificate(f"{name} root", keys[0], f"{name} root", keys[0], authority=True, since=_TODAY - 9 * _YEAR)
    middle = _certificate(f"{name} middle", keys[1], f"{name} root", keys[0], authority=True, since=_TODAY - 5 * _YEAR)
    leaf = _certificate(name, keys[2], f"{name} middle", keys[1], authority=False, since=_TODAY - age, signs=signs)
    made = Certified(*(folder / f"{name}-{what}.pem" for what in ("key", "certificate", "chain", "authority")))
    made.private.write_bytes(_private(keys[2], None))
    for path, certificate in ((made.certificate, leaf), (made.chain, middle), (made.authority, root)):
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return made


def _private(key: ec.EllipticCurvePrivateKey, password: str | None) -> bytes:
    kind = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind)


def _certificate(name, key, issuer, issuer_key, *, authority, since, signs=True) -> x509.Certificate:
    usage = dict.fromkeys(("content_commitment", "data_encipherment", "key_agreement", "encipher_only"), False)
    usage |= {"decipher_only": False, "crl_sign": authority, "key_cert_sign": authority, "key_encipherment": not signs}
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + (20 * _YEAR if authority else _YEAR))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=signs, **usage), critical=True)
    )
    return builder.sign(issuer_key, hashes.SHA256())
