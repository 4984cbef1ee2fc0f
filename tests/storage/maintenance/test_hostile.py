"""A store made by somebody who means harm: refused with one sentence, in little memory, and never half believed."""

import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator

import google_crc32c
import pytest
from numcodecs import zstd

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import manifest, sign_arrays
from gradshard.storage.formats.manifest import parse_manifest, read_manifest
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.store_paths import MANIFEST, METADATA, labels_file, signs_file
from gradshard.storage.maintenance.verify import Fault
from tests.helpers.honest import HONEST, SPEC, TEXT, resealed
from tests.helpers.known_stores import KnownStore, publish, reseal, spec_of
from tests.helpers.shard_files import chunk_rows, index_of, with_index

MB = 1_000_000


def refused(action: Callable[[], object], *, below: int = 30 * MB) -> str:
    """The action is refused with one printable sentence, and takes little memory until then."""
    tracemalloc.start()
    try:
        with pytest.raises(GradshardError) as caught:
            action()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert peak < below, f"{peak / MB:.0f} MB"
    assert sentence.isprintable(), sentence
    assert len(sentence) < 1000
    return sentence


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


def frame(size: int, *, blocks: bytes = b"") -> bytes:
    """A zstd frame that declares ``size`` bytes; without blocks it holds one that repeats a byte 128 KiB times."""
    repeated = struct.pack("<I", (1 << 17) << 3 | 1 << 1 | 1)[:3] + b"\x00"
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + (blocks or repeated)


def checked(content: bytes) -> bytes:
    return content + struct.pack("<I", google_crc32c.value(content))


def compressed(size: int) -> bytes:
    return bytes(zstd.compress(bytes(size), 1))


def frames(size: int) -> dict[str, bytes]:
    """What may stand in a chunk of ``size`` bytes but is none, its checksum right."""
    undeclared = b"\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00"
    return {
        "a tebibyte": checked(frame(1 << 40)),
        "all there can be": checked(frame((1 << 64) - 1)),
        "more than declared": checked(frame(size)),
        "one byte more": checked(compressed(size + 1)),
        "one byte less": checked(compressed(size - 1)),
        "nothing": checked(compressed(0)),
        "no declared size": checked(undeclared),
        "a frame and another": checked(compressed(size) + compressed(50 * MB)),
        "no frame": checked(b"nothing of the kind"),
        "an empty chunk": checked(b""),
        "cut off": checked(compressed(size)[:-2]),
        "no checksum": compressed(size),
        "three bytes": b"abc",
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> KnownStore:
    return publish(tmp_path_factory.mktemp("hostile") / "M.zarr", spec_of(150, chunk=8, shard=64))


@pytest.fixture
def spoil(store) -> Iterator[Callable[[str, bytes], None]]:
    """Replace a file of the store, with the right digest in the manifest; afterwards all is as it was."""
    before = store.contents()

    def replace(name: str, content: bytes) -> None:
        (store.path / name).write_bytes(content)
        reseal(store.path)

    yield replace
    for name, content in before.items():
        (store.path / name).write_bytes(content)


def check_refused_everywhere(store: KnownStore, shard: int, first: int, last: int) -> None:
    opened = open_store(store.path)
    assert f"shard {shard}" in refused(lambda: opened.read(first, last + 1), below=10 * MB)
    assert f"shard {shard}" in refused(opened.load, below=10 * MB)


@pytest.mark.parametrize("kind", list(frames(8)))
def test_a_chunk_of_signs_that_lies_about_its_size_is_refused(store, spoil, kind):
    spec, shard, chunk = store.manifest, 1, 3
    content, lie = store.contents()[signs_file(shard)], frames(8 * spec.row_bytes)[kind]
    index = index_of(content, spec)
    index[chunk] = len(content), len(lie)
    spoil(signs_file(shard), with_index(content, index) + lie)
    rows = chunk_rows(spec, shard, chunk)
    assert [(f.file, f.shard, f.first, f.last) for f in store.verify()] == [(signs_file(shard), shard, *rows)]
    check_refused_everywhere(store, shard, *rows)


@pytest.mark.parametrize("kind", list(frames(8)))
def test_labels_that_lie_about_their_size_are_refused(store, spoil, kind):
    spoil(labels_file(1), frames(64)[kind])
    assert [(f.file, f.shard, f.first, f.last) for f in store.verify()] == [(labels_file(1), 1, 64, 127)]
    assert "labels/c/1" in refused(open_store(store.path).load_labels, below=10 * MB)


@pytest.mark.parametrize("offset", [0, 130, 1 << 20, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1])
@pytest.mark.parametrize("size", [0, 3, 500, 1 << 20, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1])
def test_an_index_that_points_anywhere_else_is_refused(store, spoil, offset, size):
    spec, shard, chunk = store.manifest, 0, 5
    content = store.contents()[signs_file(shard)]
    index = index_of(content, spec)
    index[chunk] = offset, size
    spoil(signs_file(shard), with_index(content, index))
    rows = chunk_rows(spec, shard, chunk)
    faults: list[Fault] = store.verify()
    assert [(f.file, f.shard, f.first, f.last) for f in faults] == [(signs_file(shard), shard, *rows)]
    check_refused_everywhere(store, shard, *rows)


def test_labels_of_no_bytes_are_found_though_content_and_digests_are_right(tmp_path):
    def change(planes, labels):
        labels[:] = 0

    store = publish(tmp_path / "M.zarr", spec_of(150, chunk=8, shard=64), change=change)
    assert store.verify() == []
    (store.path / labels_file(1)).write_bytes(b"")
    reseal(store.path)
    assert [(f.file, f.shard) for f in store.verify()] == [(labels_file(1), 1)]


@pytest.mark.parametrize("length", [0, 1, 15, 16, 127, 131])
def test_a_shard_that_ends_in_its_index_is_refused(store, spoil, length):
    spoil(signs_file(2), store.contents()[signs_file(2)][:length])
    faults = store.verify()
    assert {(f.file, f.shard) for f in faults} == {(signs_file(2), 2)}
    check_refused_everywhere(store, 2, 128, 149)
