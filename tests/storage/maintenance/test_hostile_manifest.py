"""A manifest made by somebody who means harm: refused with one sentence, in little memory, and never half believed."""

import json

import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import manifest
from gradshard.storage.formats.manifest import parse_manifest, read_manifest
from gradshard.storage.formats.store_paths import MANIFEST
from tests.helpers.honest import HONEST, TEXT, resealed
from tests.helpers.hostile import MB, refused


def refused_manifest(content: bytes, *, below: int = 30 * MB) -> str:
    return refused(lambda: parse_manifest(content, where="M.zarr"), below=below)


def changed(*path: str | int, to: object) -> bytes:
    """The honest manifest with one value replaced, resealed."""
    document = json.loads(TEXT)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return resealed(document)


def renamed(old: str, new: str) -> bytes:
    """The honest manifest with one file under another name, resealed."""
    document = json.loads(TEXT)
    document["files"][new] = document["files"].pop(old)
    return resealed(document)


def test_the_honest_manifest_is_read():
    assert parse_manifest(resealed(json.loads(TEXT)), where="M.zarr") == HONEST


@pytest.mark.parametrize(
    "path",
    [("dataset", "rows"), ("dataset", "classes"), ("layout", "chunk"), ("layout", "shard"), ("zeros",), ("version",)],
    ids=".".join,
)
@pytest.mark.parametrize(
    "value",
    [-1, 1 << 40, 1 << 47, 1 << 62, 1 << 64, 10**30, 10**4000, 1.5, 1e308, True, None, "5", [], {}, [1] * 10_000],
    ids=lambda value: str(value)[:12],
)
def test_a_number_that_no_store_has_is_refused(path, value):
    refused_manifest(changed(*path, to=value))


@pytest.mark.parametrize(
    "shape",
    [
        [1, 1 << 40, 1 << 40],
        [1 << 47] * 3,
        [1, 1 << 16, 1 << 16],
        [1, 28],
        [1, 28, 28, 1],
        [1] * 100_000,
        [0, 28, 28],
        [-1, -28, 28],
        [1.0, 28.0, 28.0],
        ["1", "28", "28"],
        {"0": 1},
        784,
        None,
    ],
    ids=lambda shape: str(shape)[:24],
)
def test_a_sample_shape_that_no_image_has_is_refused(shape):
    refused_manifest(changed("dataset", "sample_shape", to=shape))


def test_a_shard_whose_labels_or_index_would_fill_the_memory_is_refused():
    for chunk in (1, 1 << 28):
        document = json.loads(TEXT)
        document["dataset"].update(rows=2 << 28, sample_shape=[1, 1, 1])
        document["layout"].update(chunk=chunk, shard=1 << 28)
        assert "MiB of memory" in refused_manifest(resealed(document))


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "signs/c/0/0/../0",
        "/etc/passwd",
        "signs/c/2/0/0",
        "signs/c/-1/0/0",
        "signs/c/00/0/0",
        "signs\\c\\0\\0\\0",
        "C:\\autoexec.bat",
        "labels/c/x",
        "README.md/",
        "",
        ".",
        "more.txt",
        "signs/c/0/0/0\x00",
        "\x1b]0;owned\x07",
        "x" * 100_000,
    ],
    ids=lambda name: ascii(name[:20]),
)
def test_a_file_that_is_none_of_the_stores_is_refused_as_another_name_and_as_one_more(name):
    for old in ("signs/c/0/0/0", "labels/c/1", "README.md", "zarr.json"):
        refused_manifest(renamed(old, name))
    refused_manifest(changed("files", name, to={"sha256": "b" * 64, "size": 1}))


@pytest.mark.parametrize("size", [-1, 2 * MB, 1 << 40, 1 << 62, 1 << 63, 10**30, 1.0, "1", None])
@pytest.mark.parametrize("name", ["signs/c/0/0/0", "labels/c/1", "README.md", "zarr.json"])
def test_a_file_larger_than_any_of_a_store_is_refused(name, size):
    refused_manifest(changed("files", name, "size", to=size))


@pytest.mark.parametrize("key", json.loads(TEXT))
def test_a_manifest_without_one_of_its_keys_is_refused_but_for_the_licence(key):
    document = json.loads(TEXT)
    del document[key]
    if key == "licence":
        assert parse_manifest(resealed(document), where="M.zarr").licence is None
    else:
        assert key in refused_manifest(resealed(document))


@pytest.mark.parametrize("digest", ["", "b" * 63, "B" * 64, "b" * 64 + "\n", "../" * 20, 5, None])
def test_a_digest_that_is_none_is_refused(digest):
    for path in (("content",), ("dataset", "digest"), ("model", "digest"), ("files", "README.md", "sha256")):
        refused_manifest(changed(*path, to=digest))
    document = json.loads(TEXT)
    document["digest"] = digest
    refused_manifest(json.dumps(document).encode())


@pytest.mark.parametrize("name", ["", "\x1b[2J", "a\nb", "a\x00", "a|b", "<script>", "`rm`", "a" * 101, "\u202egnp", 5])
def test_a_name_with_control_characters_or_markup_is_refused(name):
    for path in (("dataset", "name"), ("dataset", "split"), ("model", "name"), ("direction", "label"), ("licence",)):
        refused_manifest(changed(*path, to=name))
    refused_manifest(changed("versions", to={str(name): "1"}) if name != 5 else changed("versions", to={"a": 5}))


@pytest.mark.parametrize("key", ["\x1b[2J", "\x07" * 200, "a\nb\rc", "\u202e", "\ud800"])
def test_a_key_with_control_characters_is_not_shown_on_the_terminal(key):
    refused_manifest(changed("files", key, to={}))
    refused_manifest(changed("versions", key, to=5))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b'"manifest"',
        b"{}",
        b"{",
        b"\xff\xfe" + TEXT,
        b"\xef\xbb\xbf" + TEXT,
        TEXT.decode().encode("utf-16"),
        TEXT.decode().encode("utf-32-le"),
        TEXT.replace(b"digits", b"digit\xff"),
        TEXT.replace(b"digits", b"digit\xed\xa0\x80"),
        TEXT.replace(b"digits", b"digit\\ud800"),
        TEXT.replace(b"digits", b"digit\\u0000"),
        TEXT + b"{}",
        TEXT[:-3],
        TEXT + b"\x00",
        TEXT.replace(b'"zeros": 300', b'"zeros": NaN'),
        TEXT.replace(b'"zeros": 300', b'"zeros": Infinity'),
        TEXT.replace(b'"zeros": 300', b'"zeros": 1e999'),
        TEXT.replace(b'"zeros": 300', b'"zeros": 300, "more": NaN'),
        TEXT.replace(b'"zeros": 300', b'"zeros": ' + b"9" * 1_000_000),
        TEXT.replace(b'"zeros": 300', b'"zeros": 300, "more": ' + b"9" * 1_000_000),
        TEXT.replace(b'"zeros": 300', b'"zeros": 3e2'),
    ],
    ids=lambda content: ascii(content[:12]),
)
def test_what_is_no_plain_json_of_a_manifest_is_refused(content):
    assert content != TEXT
    refused_manifest(content)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "mappings"])
@pytest.mark.parametrize("depth", [150, 250, 900, 980, 1000, 100_000])
def test_deep_nesting_is_refused(opening, closing, depth):
    nested = opening * depth + b"1" + closing * depth
    refused_manifest(nested)
    refused_manifest(opening * depth)
    for key in (b'"aaa"', b'"zzz"', b'"zeros"'):
        refused_manifest(TEXT.replace(b'"zeros": 300', b'"zeros": 300, ' + key + b": " + nested))


@pytest.mark.parametrize("extra", [b'"zeros": 5,', b'"digest": "' + b"c" * 64 + b'",', b'"layout": {},'])
def test_of_a_key_that_stands_twice_the_digest_covers_the_value_that_is_believed(extra):
    first, last = b"{" + extra + TEXT[1:], TEXT.rstrip()[:-1] + b"," + extra[:-1] + b"}"
    for content in (first, last):
        try:
            found = parse_manifest(content, where="M.zarr")
        except GradshardError:
            continue
        assert found == HONEST
        assert not manifest.is_canonical(content)


@pytest.mark.slow
def test_a_manifest_of_40_mb_is_refused_in_little_memory(tmp_path):
    (tmp_path / MANIFEST).write_bytes(TEXT + b" " * 40 * MB)
    assert "is larger than" in refused(lambda: read_manifest(tmp_path), below=100 * MB)
    refused_manifest((tmp_path / MANIFEST).read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "entry"),
    [
        ('"files": {', '"%d":{},'),
        ('"versions": {', '"%d":1,'),
        ("{", '"%d":[],'),
        ('"sample_shape": [', "[%d],"),
    ],
)
def test_a_manifest_as_large_as_allowed_and_full_of_rubbish_is_refused_in_bounded_memory(place, entry):
    text = TEXT.decode()
    room = (manifest.SIZE_LIMIT - len(text)) // len(entry % 10_000_000)
    # By its bytes; by its values; and by what it says of all files, or of anything else.
    for count in (room, manifest._VALUES_LIMIT - 1000, manifest._ENTRIES_LIMIT - 1000):
        rubbish = "".join(entry % number for number in range(count))
        content = text.replace(place, place + rubbish, 1).encode()
        assert len(content) <= manifest.SIZE_LIMIT
        refused_manifest(content, below=300 * MB)
