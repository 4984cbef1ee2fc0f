"""Signs and labels of somebody who means harm: refused with one sentence, in little memory, and never half believed."""

import struct
from collections.abc import Callable, Iterator

import google_crc32c
import pytest
from numcodecs import zstd

from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.store_paths import labels_file, signs_file
from gradshard.storage.maintenance.verify import Fault
from tests.helpers.hostile import MB, refused
from tests.helpers.known_stores import KnownStore, publish, reseal, spec_of
from tests.helpers.shard_files import chunk_rows, index_of, with_index


def frame(size: int, *, blocks: bytes = b"") -> bytes:
    """A zstd frame that declares ``size`` bytes; without blocks it holds one that repeats a byte 128 KiB times."""
    repeated = struct.pack("<I", (1 << 17) << 3 | 1 << 1 | 1)[:3] + b"\x00"
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + (blocks or repeated)


def checked(content: bytes) -> bytes:
    return content + struct.pack("<I", google_crc32c.value(content))


def compressed(size: int) -> bytes:
    return bytes(zstd.compress(bytes(size), 1))


def frames(size: int) -> dict[str, bytes]:
    """Return what may stand in the place of a chunk of ``size`` bytes but is none, its checksum right."""
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
