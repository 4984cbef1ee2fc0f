"""Verifying a store finds every damage and names it; repairing gives the bytes back, or leaves the file alone."""

import shutil

import numpy as np
import pytest
import zarr

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import (
    StoreSpec,
    read_manifest,
)
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.store_paths import CARD, MANIFEST, METADATA, labels_file, signs_file
from gradshard.storage.maintenance.texts import LINE_ENDS
from gradshard.storage.maintenance.verify import Fault, stray_files
from tests.helpers.known_stores import KnownStore, publish, reseal, spec_of
from tests.helpers.shard_files import chunk_rows, index_of, with_index

HOLE = (1 << 64) - 1


def rows_at(spec: StoreSpec, shard: int, name: str, content: bytes, position: int) -> tuple[int, int]:
    """The first and last row that a byte of a shard's file belongs to: those of its chunk, or all."""
    if name == signs_file(shard):
        for chunk, (offset, size) in enumerate(index_of(content, spec).tolist()):
            first, last = chunk_rows(spec, shard, chunk)
            if offset <= position < offset + size and first <= last:
                return first, last
    rows = spec.cut.shard_rows(shard)
    return rows.start, rows.stop - 1


def flipped(content: bytes, position: int, mask: int) -> bytes:
    return content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]


def check_found_and_mended(store: KnownStore, before: dict[str, bytes], shard: int, names: set[str]) -> list[Fault]:
    """The damage in one shard is found and named, and repair computes that shard alone and gives the bytes back."""
    faults = store.verify()
    assert {fault.shard for fault in faults} == {shard}
    assert {fault.file for fault in faults} == names
    assert store.repair(faults) == []
    assert store.computed == [shard]
    assert store.contents() == before
    return faults


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> KnownStore:
    """Eleven shards; in the last one, a chunk is partly filled and others lie outside the rows. Left as it was."""
    return publish(tmp_path_factory.mktemp("shared") / "M.zarr", spec_of(660, chunk=8, shard=64))


@pytest.fixture
def store(shared, tmp_path) -> KnownStore:
    shutil.copytree(shared.path, tmp_path / "M.zarr")
    return KnownStore(tmp_path / "M.zarr", shared.signs, shared.labels)


@pytest.fixture(scope="module")
def shard_files(shared) -> dict[str, int]:
    """The shard of each shard's file."""
    shards = range(shared.manifest.cut.shards)
    return {name(shard): shard for shard in shards for name in (signs_file, labels_file)}


def test_an_intact_store_has_no_faults_and_nothing_to_mend(shared):
    assert shared.verify() == []
    assert stray_files(shared.path, shared.manifest) == []


@pytest.mark.slow
def test_every_changed_byte_in_a_shard_is_found_named_by_its_rows_and_mended(shared, shard_files):
    before, spec = shared.contents(), shared.manifest
    rng = np.random.default_rng(1)
    # Any byte is as likely as any other.
    places = [(name, position) for name in shard_files for position in range(len(before[name]))]
    for name, position in [places[i] for i in rng.choice(len(places), 180, replace=False)] + [
        (labels_file(int(shard)), int(rng.integers(len(before[labels_file(int(shard))]))))
        for shard in rng.integers(spec.cut.shards, size=20)
    ]:
        shard = shard_files[name]
        (shared.path / name).write_bytes(flipped(before[name], position, int(rng.integers(1, 256))))
        faults = check_found_and_mended(shared, before, shard, {name})
        assert [(f.first, f.last) for f in faults] == [rows_at(spec, shard, name, before[name], position)]


@pytest.mark.slow
def test_every_cut_off_shard_is_found_with_its_last_rows_and_mended(shared, shard_files):
    before, spec = shared.contents(), shared.manifest
    rng = np.random.default_rng(2)
    for name in rng.choice(sorted(shard_files), 20):
        shard = shard_files[name]
        length = int(rng.integers(len(before[name])))
        (shared.path / name).write_bytes(before[name][:length])
        faults = check_found_and_mended(shared, before, shard, {str(name)})
        # Whatever the missing bytes belong to is named.
        lost = {rows_at(spec, shard, name, before[name], position) for position in range(length, len(before[name]))}
        named = {(f.first, f.last) for f in faults}
        for first, last in lost:
            assert any(low <= first and last <= high for low, high in named)


@pytest.mark.slow
def test_every_deleted_shard_is_found_and_mended(shared, shard_files):
    before = shared.contents()
    rng = np.random.default_rng(3)
    for name in rng.choice(sorted(shard_files), 20):
        (shared.path / name).unlink()
        faults = check_found_and_mended(shared, before, shard_files[name], {str(name)})
        rows = shared.manifest.cut.shard_rows(shard_files[name])
        assert [(f.what, f.first, f.last) for f in faults] == [("is missing", rows.start, rows.stop - 1)]


@pytest.mark.slow
@pytest.mark.parametrize("half", [None, 0, 1], ids=["whole entry", "offset alone", "length alone"])
def test_every_hole_in_a_shard_is_found_whether_or_not_the_digests_betray_it(shared, half):
    before, spec = shared.contents(), shared.manifest
    rng = np.random.default_rng(4)
    for _ in range(20):
        shard = int(rng.integers(spec.cut.shards))
        rows = spec.cut.shard_rows(shard)
        chunk = int(rng.integers(-(-(rows.stop - rows.start) // spec.layout.chunk)))
        name = signs_file(shard)
        index = index_of(before[name], spec)
        index[chunk, slice(None) if half is None else half] = HOLE
        holed = with_index(before[name], index)
        (shared.path / name).write_bytes(holed)
        hole = Fault(name, "a chunk was never written", shard, *chunk_rows(spec, shard, chunk))
        reseal(shared.path)
        assert shared.verify() == [hole]
        (shared.path / MANIFEST).write_bytes(before[MANIFEST])
        assert check_found_and_mended(shared, before, shard, {name}) == [hole]


def test_damage_in_several_shards_is_named_shard_by_shard_and_mended_together(store):
    before = store.contents()
    (store.path / signs_file(3)).unlink()
    (store.path / labels_file(3)).write_bytes(b"")
    (store.path / labels_file(7)).write_bytes(flipped(before[labels_file(7)], 0, 1))
    (store.path / CARD).unlink()
    faults = store.verify()
    assert list(dict.fromkeys(f.shard for f in faults)) == [None, 3, 7]
    assert {f.file for f in faults} == {CARD, signs_file(3), labels_file(3), labels_file(7)}
    assert store.repair(faults) == []
    assert store.computed == [3, 7]
    assert store.contents() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", [CARD, *METADATA])
def test_every_changed_byte_in_metadata_or_card_is_found_and_mended_without_computing(shared, name):
    before = shared.contents()
    rng = np.random.default_rng(len(name))
    for position in rng.integers(len(before[name]), size=25):
        (shared.path / name).write_bytes(flipped(before[name], int(position), int(rng.integers(1, 256))))
        faults = shared.verify()
        assert {(f.file, f.shard) for f in faults} == {(name, None)}
        assert shared.repair(faults) == []
        assert shared.computed == []
        assert shared.contents() == before


@pytest.mark.parametrize("name", [CARD, *METADATA])
def test_missing_metadata_or_card_is_found_and_mended(store, name):
    before = store.contents()
    (store.path / name).unlink()
    faults = store.verify()
    assert [(f.file, f.what) for f in faults] == [(name, "is missing")]
    assert store.repair(faults) == []
    assert store.contents() == before


@pytest.mark.slow
def test_every_changed_byte_in_the_manifest_is_found(shared):
    before = shared.contents()
    rng = np.random.default_rng(7)
    blanks = [i for i, byte in enumerate(before[MANIFEST]) if byte in b" \n"]
    changes = [(int(p), int(rng.integers(1, 256))) for p in rng.integers(len(before[MANIFEST]), size=300)]
    # A blank for a line break, and the other way round, changes no meaning.
    changes += [(int(p), ord(" ") ^ ord("\n")) for p in rng.choice(blanks, 20)]
    mended = 0
    for position, mask in changes:
        (shared.path / MANIFEST).write_bytes(flipped(before[MANIFEST], position, mask))
        try:
            read_manifest(shared.path)
        except GradshardError:
            (shared.path / MANIFEST).write_bytes(before[MANIFEST])
            continue
        faults = shared.verify()
        assert [f.file for f in faults] == [MANIFEST]
        assert shared.repair(faults) == []
        assert shared.computed == []
        assert shared.contents() == before
        mended += 1
    assert mended > 10


@pytest.mark.parametrize("names", [[CARD], [CARD, *METADATA], [CARD, *METADATA, MANIFEST]], ids=len)
def test_a_store_whose_line_ends_git_changed_is_told_as_that_and_mended_without_computing(store, names):
    before = store.contents()
    for name in names:
        (store.path / name).write_bytes(before[name].replace(b"\n", b"\r\n"))
    faults = store.verify()
    assert {fault.file: fault.what for fault in faults} == dict.fromkeys(names, LINE_ENDS)
    assert store.repair(faults) == []
    assert store.computed == []
    assert store.contents() == before


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("write", ["consolidated metadata", "an attribute"])
def test_what_zarr_writes_into_the_metadata_is_told_with_its_remedy_and_mended(store, write):
    before = store.contents()
    if write == "an attribute":
        zarr.open_group(store.path, mode="r+").attrs["note"] = "mine"
    else:
        zarr.consolidate_metadata(str(store.path))
    with pytest.raises(GradshardError, match=r"zarr\.json does not fit .* `gradshard store repair` makes it again"):
        open_store(store.path)
    faults = store.verify()
    assert [fault.file for fault in faults] == ["zarr.json"]
    assert store.repair(faults) == []
    assert store.computed == []
    assert store.contents() == before


def test_a_card_that_another_version_wrote_gets_its_line_ends_back(store):
    page = b"the card\nof another version\n"
    (store.path / CARD).write_bytes(page)
    reseal(store.path)
    (store.path / CARD).write_bytes(page.replace(b"\n", b"\r\n"))
    faults = store.verify()
    assert [fault.what for fault in faults] == [LINE_ENDS]
    assert store.repair(faults) == []
    assert (store.path / CARD).read_bytes() == page


def test_a_card_with_other_line_ends_and_other_words_is_no_matter_of_line_ends(store):
    before = (store.path / CARD).read_bytes()
    (store.path / CARD).write_bytes(before.replace(b"\n", b"\r\n").replace(b"Sign", b"Song"))
    assert [fault.what for fault in store.verify()] != [LINE_ENDS]
    assert store.repair(store.verify()) == []
    assert (store.path / CARD).read_bytes() == before


@pytest.mark.parametrize("name", ["more.txt", "signs/c/0/0/1", "signs/c/0/0/0.deadbeef.partial", "labels/.hidden"])
def test_a_file_that_is_none_of_the_stores_is_reported_and_left_to_the_owner(store, name):
    (store.path / name).write_bytes(b"litter")
    assert store.verify() == []
    faults = stray_files(store.path, store.manifest)
    assert [(f.file, f.shard) for f in faults] == [(name, None)]
    assert store.repair(faults) == faults
    assert (store.path / name).read_bytes() == b"litter"


def test_a_link_that_is_none_of_the_stores_is_reported(store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (store.path / "link").symlink_to(tmp_path / "elsewhere")
    assert [f.file for f in stray_files(store.path, store.manifest)] == ["link"]


def test_a_folder_in_the_place_of_a_shard_is_found(store):
    (store.path / signs_file(2)).unlink()
    (store.path / signs_file(2)).mkdir()
    assert {(f.shard, f.file) for f in store.verify()} == {(2, signs_file(2))}


def odd_spec() -> StoreSpec:
    """25 signs a row: 7 padding bits in each plane."""
    return spec_of(90, chunk=4, shard=16, shape=(1, 5, 5))


def set_illegal(planes, labels):
    planes[35, :, 1] |= 0b00010000
    planes[33, :, 0] |= 0b10000000


def set_padding(plane):
    def change(planes, labels):
        planes[34, plane, -1] |= 0b00000001

    return change


@pytest.mark.parametrize(
    ("change", "count", "rows"),
    [(set_illegal, 2, (33, 35)), (set_padding(0), 1, (34, 34)), (set_padding(1), 1, (34, 34))],
    ids=["pair 1, 1", "padding of plane 0", "padding of plane 1"],
)
def test_codes_that_are_no_signs_are_found_and_their_rows_named_though_every_digest_is_right(
    tmp_path, change, count, rows
):
    store = publish(tmp_path / "M.zarr", odd_spec(), change=change)
    assert store.verify() == [Fault(signs_file(2), f"{count} rows hold codes that are no signs", 2, *rows)]


def test_a_store_of_signs_that_do_not_fill_their_last_byte_is_intact(tmp_path):
    assert publish(tmp_path / "M.zarr", odd_spec()).verify() == []


@pytest.mark.parametrize("label", [10, 254, 255])
def test_labels_that_are_no_class_are_found_and_their_rows_named_though_every_digest_is_right(tmp_path, label):
    def change(planes, labels):
        labels[[50, 59]] = label

    store = publish(tmp_path / "M.zarr", odd_spec(), change=change)
    assert store.verify() == [Fault(labels_file(3), "2 labels are no class", 3, 50, 59)]


@pytest.mark.parametrize("name", ["zeros", "content"])
def test_a_count_or_content_that_is_not_the_stores_is_found_and_cannot_be_mended(store, name):
    right = store.manifest
    wrong = {"zeros": right.zeros + 1, "content": "a" * 64}
    reseal(store.path, **{name: wrong[name]})
    before = store.contents()
    faults = store.verify()
    assert [f.file for f in faults] == [MANIFEST]
    expected = (
        f"says that {right.zeros + 1} signs are 0, but {right.zeros} are" if name == "zeros" else "another content"
    )
    assert expected in faults[0].what
    assert [f.file for f in store.repair(faults)] == [MANIFEST]
    assert store.contents() == before


def test_a_repair_that_comes_out_differently_leaves_the_file_as_it_is_and_says_so(store):
    before = store.contents()
    damaged = {
        signs_file(4): flipped(before[signs_file(4)], 300, 4),
        labels_file(6): flipped(before[labels_file(6)], 9, 4),
    }
    for name, content in damaged.items():
        (store.path / name).write_bytes(content)
    other = KnownStore(store.path, -store.signs, store.labels)
    left = other.repair(other.verify())
    assert [(f.file, f.shard) for f in left] == [(signs_file(4), 4)]
    assert "comes out differently on this machine" in left[0].what
    assert "zarr" in left[0].what
    # The labels came out right: they are mended, the signs are not touched.
    assert store.contents() == {**before, signs_file(4): damaged[signs_file(4)]}


def test_a_card_that_comes_out_differently_is_left_as_it_is(store):
    (store.path / CARD).write_text("another card\n")
    reseal(store.path)
    (store.path / CARD).write_text("damaged\n")
    faults = store.verify()
    assert [f.file for f in faults] == [CARD]
    left = store.repair(faults)
    assert [f.file for f in left] == [CARD]
    assert "comes out differently" in left[0].what
    assert (store.path / CARD).read_text() == "damaged\n"
