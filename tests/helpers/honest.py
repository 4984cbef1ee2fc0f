"""An honest store's spec and manifest, which tests change."""

import contextlib
import json

from gradshard.storage.formats import manifest
from gradshard.storage.formats.digests import digest_of
from gradshard.storage.formats.manifest import FileRecord
from gradshard.storage.formats.store_paths import expected_files
from tests.helpers.known_stores import spec_of

SPEC = spec_of(100, chunk=8, shard=64)
HONEST = manifest.finalize(
    SPEC,
    content="a" * 64,
    zeros=300,
    files={name: FileRecord(sha256="b" * 64, size=1000) for name in sorted(expected_files(2))},
    versions={"gradshard": "1.0"},
)
TEXT = HONEST.text().encode()


def resealed(document: object) -> bytes:
    """Return the text of a manifest with the right digest, if it can have one."""
    if isinstance(document, dict) and "digest" in document:
        rest = {key: value for key, value in document.items() if key != "digest"}
        with contextlib.suppress(ValueError):
            document = {**document, "digest": digest_of(rest)}
    return json.dumps(document, indent=1).encode()
