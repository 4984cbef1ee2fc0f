"""Metadata of arrays, of somebody who means harm: refused with one sentence, in little memory."""

import json

import pytest

from gradshard.storage.formats import sign_arrays
from gradshard.storage.formats.store_paths import METADATA
from tests.helpers.honest import SPEC
from tests.helpers.hostile import MB, refused


def refused_metadata(name: str, content: bytes) -> str:
    return refused(lambda: sign_arrays.check_metadata(name, content, SPEC, where="M.zarr"), below=10 * MB)


def test_the_metadata_of_an_honest_store_is_accepted(metadata):
    for name, content in metadata.items():
        sign_arrays.check_metadata(name, content, SPEC, where="M.zarr")


@pytest.mark.parametrize("name", ["signs/zarr.json", "labels/zarr.json"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_type", "int8"),
        ("data_type", "float64"),
        ("data_type", {"name": "uint8"}),
        ("data_type", "object"),
        ("shape", [1 << 60, 2, 98]),
        ("shape", [100.0, 2, 98]),
        ("shape", []),
        ("fill_value", 0),
        ("fill_value", 255.0),
        ("fill_value", True),
        ("fill_value", None),
        ("codecs", []),
        ("codecs", [{"name": "bytes"}]),
        ("codecs", [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]),
        ("codecs", [{"name": "numcodecs.pickle"}]),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [1 << 50, 2, 98]}}),
        ("chunk_key_encoding", {"name": "v2", "configuration": {"separator": "/"}}),
        ("chunk_key_encoding", {"name": "default", "configuration": {"separator": "../"}}),
        ("storage_transformers", [{"name": "any"}]),
        ("zarr_format", 2),
        ("zarr_format", True),
        ("node_type", "group"),
        ("attributes", {"more": 1}),
        ("dimension_names", None),
        ("\x1b[2J", 5),
        ("x" * 5000, 5),
        ("huge", 10**4000),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_arrays_that_are_not_those_of_the_manifest_are_refused(metadata, name, key, value):
    document = json.loads(metadata[name])
    assert document.get(key) is not value
    document[key] = value
    assert "does not fit the manifest" in refused_metadata(name, json.dumps(document).encode())


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"5", b"{}", b"{", b"\xff", b'{"zarr_format": NaN}', b'{"shape": ' + b"9" * 60_000]
)
def test_what_is_no_metadata_is_refused(name, content):
    refused_metadata(name, content)


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("depth", [*range(880, 1000, 7), 30_000])
def test_deep_nesting_in_metadata_is_refused(metadata, name, depth):
    for nested in (b"[" * depth + b"]" * depth, b"[" * depth):
        refused_metadata(name, nested)
        refused_metadata(name, metadata[name].replace(b"{", b'{"aaa": ' + nested + b",", 1))


@pytest.mark.parametrize("name", METADATA)
def test_metadata_larger_than_any_is_refused(metadata, name):
    assert "larger than any" in refused_metadata(name, metadata[name] + b" " * sign_arrays.METADATA_LIMIT)
