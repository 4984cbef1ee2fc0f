"""A store of 100,000 shards has a manifest that is written, read and held against its digest."""

import json

import pytest

from gradshard.storage.errors import AlteredError
from gradshard.storage.formats import manifest
from gradshard.storage.formats.manifest import FileRecord, parse_manifest
from gradshard.storage.formats.store_paths import DESCRIPTIONS, expected_files
from tests.helpers.known_stores import spec_of

SHARDS = 100_000


@pytest.mark.slow
def test_a_manifest_of_a_hundred_thousand_shards_is_read():
    spec = spec_of(64 * SHARDS, chunk=8, shard=64)
    names = expected_files(SHARDS) | set(DESCRIPTIONS)
    files = {name: FileRecord(sha256="6" * 64, size=9_999) for name in sorted(names)}
    written = manifest.finalize(spec, content="7" * 64, zeros=0, files=files, versions={})
    content = written.text().encode()
    assert len(content) < manifest.SIZE_LIMIT
    assert parse_manifest(content, where="M.zarr") == written
    assert manifest.is_canonical(content)


@pytest.mark.parametrize(
    "entry", [{}, {"sha256": "6" * 64}, {"sha256": "G" * 64, "size": 1}, {"sha256": "6" * 64, "size": True}, 3]
)
def test_the_first_file_that_is_described_wrongly_is_named(entry):
    spec = spec_of(100, chunk=8, shard=64)
    names = sorted(expected_files(spec.cut.shards) | set(DESCRIPTIONS))
    files = {name: FileRecord(sha256="6" * 64, size=9) for name in names}
    document = json.loads(manifest.finalize(spec, content="7" * 64, zeros=0, files=files, versions={}).text())
    document["files"] |= dict.fromkeys(names[2:], entry)
    with pytest.raises(AlteredError) as caught:
        parse_manifest(json.dumps(document).encode(), where="M.zarr")
    assert names[2] in str(caught.value)
    assert names[3] not in str(caught.value)
