"""The readers of manifests and metadata against ten thousand documents that nobody wrote by hand."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import sign_arrays
from gradshard.storage.formats.manifest import SHARD_LIMIT, Manifest, parse_manifest
from gradshard.storage.formats.store_paths import METADATA, expected_files
from tests.helpers.honest import HONEST, SPEC, TEXT, resealed

BYTE_EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 3), st.integers(0, 255)), min_size=1, max_size=4
)


def byte_edited(content: bytes, edits: list[tuple[int, int, int]]) -> bytes:
    """Bytes replaced, inserted, cut out or doubled."""
    for place, kind, value in edits:
        at = place % (len(content) + 1)
        if kind == 0:
            content = content[:at] + bytes([value]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + bytes([value]) + content[at:]
        elif kind == 2:
            content = content[:at] + content[at + value :]
        else:
            content = content[:at] + content[at : at + value] + content[at:]
    return content


VALUES = st.sampled_from(
    [
        *(0, -1, 1, 2, 7, 8, 64, 100, 128, 255, 1 << 20, 1 << 31, 1 << 40, 1 << 48, 1 << 62, 1 << 63, 1 << 64, 10**30),
        *(0.0, 1.0, 1e308, float("nan"), float("inf"), True, False, None, "", "a", "..", "/etc/passwd", "0" * 64),
        *("\x1b[2J", "\ud800", "a" * 101, [], {}, [[]], [1, 1, 1], [1, 1 << 20, 1 << 20], {"sha256": "b" * 64}),
        *(float(100), "100", [1.0, 28.0, 28.0], -0.0, "signs/c/0/0/0", {"signs/c/9/0/0": {}}),
    ]
)
TREE_EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 3), st.integers(0, 1 << 16), VALUES), min_size=1, max_size=4
)


def places(document: object) -> list[tuple[object, object]]:
    """Every value in a document, as its container and its key."""
    found: list[tuple[object, object]] = []
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        found.append((document, key))
        if isinstance(value, dict | list):
            found += places(value)
    return found


def tree_edited(document: object, edits: list[tuple[int, int, int, object]]) -> object:
    """Values replaced, removed, moved to another key, or copied to another place."""
    document = copy.deepcopy(document)
    for place, kind, other, value in edits:
        there = places(document)
        if not there:
            break
        container, key = there[place % len(there)]
        if kind == 0:
            container[key] = copy.deepcopy(value)
        elif kind == 1:
            del container[key]
        elif kind == 2 and isinstance(container, dict):
            container[value if isinstance(value, str) else str(value)] = container.pop(key)
        else:
            source, source_key = there[other % len(there)]
            container[key] = copy.deepcopy(source[source_key])
    return document


def told(error: GradshardError) -> None:
    """The error is one sentence that a terminal can show."""
    assert str(error).isprintable()
    assert len(str(error)) < 1000


def parsed(content: bytes) -> Manifest | None:
    try:
        return parse_manifest(content, where="M.zarr")
    except GradshardError as error:
        told(error)
        return None


def accepted_metadata(name: str, content: bytes) -> bool:
    try:
        sign_arrays.check_metadata(name, content, SPEC, where="M.zarr")
    except GradshardError as error:
        told(error)
        return False
    return True


def as_text(document: object) -> str:
    return json.dumps(document, sort_keys=True)


@pytest.mark.slow
@settings(max_examples=3500, deadline=None)
@given(BYTE_EDITS)
def test_a_manifest_with_any_bytes_changed_is_refused_or_means_the_same(edits):
    content = byte_edited(TEXT, edits)
    found = parsed(content)
    assert found is None or found == HONEST


@pytest.mark.slow
@settings(max_examples=4000, deadline=None)
@given(TREE_EDITS)
def test_a_resealed_manifest_is_refused_or_names_a_stores_files_and_shards_that_fit_the_memory(edits):
    found = parsed(resealed(tree_edited(json.loads(TEXT), edits)))
    if found is not None:
        assert found.files.keys() == expected_files(found.cut.shards)
        assert found.layout.shard * (found.row_bytes + 8) <= SHARD_LIMIT
        assert all(record.size <= 2 * SHARD_LIMIT for record in found.files.values())


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(name=st.sampled_from(METADATA), edits=BYTE_EDITS)
def test_metadata_with_any_bytes_changed_is_refused_or_means_the_same(metadata, name, edits):
    content = byte_edited(metadata[name], edits)
    if accepted_metadata(name, content):
        assert as_text(json.loads(content)) == as_text(json.loads(metadata[name]))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(name=st.sampled_from(METADATA), edits=TREE_EDITS)
def test_metadata_with_any_values_changed_is_refused_or_means_the_same(metadata, name, edits):
    content = json.dumps(tree_edited(json.loads(metadata[name]), edits)).encode()
    if accepted_metadata(name, content):
        assert as_text(json.loads(content)) == as_text(json.loads(metadata[name]))
