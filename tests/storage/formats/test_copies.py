"""Stores of several copies: each is read by itself, checked with the others, and mended alone."""

import numpy as np
import pytest
import zarr

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.manifest import AttackRecord, read_manifest
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.formats.store_files import Folder
from gradshard.storage.formats.store_paths import signs_file
from gradshard.storage.maintenance.repair import repair
from gradshard.storage.maintenance.verify import verify
from tests.helpers.known_stores import spec_of
from tests.helpers.stores import random_signs

ROWS, COPIES = 150, 3


def spec(copies=COPIES):
    plain = spec_of(ROWS, chunk=8, shard=64)
    attack = AttackRecord(name="pgd", epsilon=0.3, steps=20, threshold=0.5, seed=1, copies=copies)
    return plain.model_copy(update={"direction": plain.direction.model_copy(update={"attack": attack})})


@pytest.fixture
def published(tmp_path):
    signs = np.stack([random_signs(ROWS, 784, seed=copy) for copy in range(COPIES)])
    labels = np.arange(ROWS) % 10

    def compute(shard):
        rows = spec().cut.shard_rows(shard)
        return np.stack([bitplanes.pack(part[rows]) for part in signs]), labels[rows]

    builder = StoreBuilder(tmp_path / "building", spec())
    builder.create()
    for shard in builder.missing():
        builder.write_shard(shard, *compute(shard))
    builder.publish(tmp_path / "M.zarr")
    return tmp_path / "M.zarr", signs, labels, compute


def faults(path):
    return verify(Folder(path), read_manifest(path), advance=lambda _: None, threads=2)


def test_every_copy_is_read_as_it_was_written(published):
    path, signs, labels, _ = published
    store = open_store(path)
    for copy, expected in enumerate(signs):
        assert np.array_equal(bitplanes.unpack(store.of_copy(copy).load(), 784), expected)
        assert np.array_equal(bitplanes.unpack(store.of_copy(copy).read(60, 70), 784), expected[60:70])
    assert np.array_equal(store.load_labels(), labels)
    assert store.manifest.zeros == (signs == 0).sum()
    assert 0.9 < store.manifest.bits_per_pixel < 2.2


def test_all_copies_are_taken_in_turn_unless_one_was_chosen(published):
    store = open_store(published[0])
    assert (store.copy, [copy.copy for copy in store.in_turn]) == (0, [0, 1, 2])
    assert [copy.copy for copy in store.of_copy(0).in_turn] == [0]
    assert [copy.copy for copy in store.of_copy(2).in_turn] == [2]


def test_plain_zarr_reads_every_copy(published):
    path, signs, _, _ = published
    group = zarr.open_group(path, mode="r")
    assert group.attrs["copies"] == COPIES
    for name, expected in zip(("signs", "signs-1", "signs-2"), signs, strict=True):
        assert np.array_equal(bitplanes.unpack(group[name][:], 784), expected)


def test_a_copy_that_is_not_there_is_refused(published):
    with pytest.raises(GradshardError, match="has no copy 3: it has 3, counted from 0 on"):
        open_store(published[0]).of_copy(3)


@pytest.mark.parametrize("copy", range(COPIES))
def test_damage_in_any_copy_is_found_and_mended_to_the_same_bytes(published, tmp_path, copy):
    path, _, _, compute = published
    name = signs_file(1, copy)
    before = (path / name).read_bytes()
    assert faults(path) == []
    (path / name).write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    found = faults(path)
    assert [(fault.file, fault.shard) for fault in found] == [(name, 1)]
    (tmp_path / "scratch").mkdir()
    left = repair(
        path, read_manifest(path), found, scratch=tmp_path / "scratch", compute=compute, advance=lambda _: None
    )
    assert left == faults(path) == []
    assert (path / name).read_bytes() == before


def test_a_store_of_gradients_has_the_manifest_that_it_always_had():
    dumped = spec_of(ROWS, chunk=8, shard=64).model_dump(mode="json")
    assert list(dumped["direction"]) == ["gradient", "label", "mode", "dtype", "step", "agreement"]


def test_the_first_copy_lies_where_a_reader_of_old_looks(published):
    path, signs, _, _ = published
    assert np.array_equal(bitplanes.unpack(zarr.open_group(path, mode="r")["signs"][:], 784), signs[0])


def test_the_card_tells_the_attack_and_where_its_copies_are(published):
    page = (published[0] / "README.md").read_text()
    assert "The signs of the end directions of an attack of the static model `M`" in page
    assert "| attack | pgd, epsilon 0.3, steps 20; 3 copies: `signs`, `signs-1`, `signs-2` |" in page
