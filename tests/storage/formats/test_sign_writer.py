"""Building a sign store: resumable, idempotent, published last."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.formats.store_card import card
from gradshard.storage.formats.store_paths import SIGNATURE
from tests.helpers.stores import build_store, random_signs, store_spec


@pytest.fixture
def builder(tmp_path, small_dataset):
    builder = StoreBuilder(tmp_path / "building", store_spec(small_dataset))
    builder.create()
    return builder


def write(builder, dataset, shard, seed=0):
    rows = builder.layout.shard_rows(shard)
    signs = random_signs(len(dataset.train), 784, seed=seed)[rows]
    return builder.write_shard(shard, bitplanes.pack(signs), dataset.train.read_labels(rows.start, rows.stop))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_published_store_gives_back_signs_and_labels(small_store, small_dataset):
    signs = random_signs(700, 784, seed=0)
    assert np.array_equal(bitplanes.unpack(small_store.load(), 784), signs)
    assert np.array_equal(small_store.load_labels(), small_dataset.train.read_labels())
    assert small_store.manifest.zeros == (signs == 0).sum()


@pytest.mark.parametrize("spoil", [lambda size: bytes(size), lambda size: bytes(50)], ids=["zeros", "cut"])
def test_a_last_shard_that_a_power_failure_spoiled_is_written_anew(builder, small_dataset, spoil):
    last = builder.layout.shards - 1
    assert len(range(700)[builder.layout.shard_rows(last)]) < builder.layout.shard
    receipt = write(builder, small_dataset, last)
    for name in receipt.files:
        (builder.store / name).write_bytes(spoil((builder.store / name).stat().st_size))
    assert write(builder, small_dataset, last) == receipt


def test_any_order_of_shards_and_any_repetition_gives_the_same_bytes(tmp_path, small_dataset):
    build_store(tmp_path / "b1", small_dataset, tmp_path / "one.zarr")
    builder = StoreBuilder(tmp_path / "b2", store_spec(small_dataset))
    builder.create()
    shards = builder.layout.shards
    assert shards > 10
    for shard in [*reversed(range(shards)), 3, 3, 0]:
        write(builder, small_dataset, shard)
    builder.publish(tmp_path / "two.zarr")
    assert contents(tmp_path / "one.zarr") == contents(tmp_path / "two.zarr")


@pytest.mark.parametrize("same", [True, False])
def test_a_signature_stays_where_the_same_store_is_published_again_and_only_there(tmp_path, small_dataset, same):
    target = tmp_path / "M.zarr"
    build_store(tmp_path / "b1", small_dataset, target)
    (target / SIGNATURE).write_bytes(b"somebody's")
    build_store(tmp_path / "b2", small_dataset, target, seed=0 if same else 1)
    assert [path.read_bytes() for path in target.glob(SIGNATURE)] == ([b"somebody's"] if same else [])


def test_shards_with_a_receipt_are_not_asked_for_again(builder, small_dataset):
    everything = list(range(builder.layout.shards))
    assert builder.missing() == everything
    write(builder, small_dataset, 2)
    write(builder, small_dataset, 5)
    again = StoreBuilder(builder.folder, builder.spec)
    again.create()
    assert again.missing() == [shard for shard in everything if shard not in (2, 5)]


@pytest.mark.parametrize("damage", ["shard gone", "shard truncated", "receipt cut"])
def test_a_receipt_that_does_not_fit_its_files_counts_for_nothing(builder, small_dataset, damage):
    write(builder, small_dataset, 0)
    file = builder.store / "signs/c/0/0/0"
    if damage == "shard gone":
        file.unlink()
    elif damage == "shard truncated":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        receipt = next((builder.folder / "ledger").glob("*.json"))
        receipt.write_text(receipt.read_text()[:20])
    assert 0 in builder.missing()


def test_an_unfinished_store_is_not_published(builder, small_dataset, tmp_path):
    write(builder, small_dataset, 0)
    with pytest.raises(GradshardError, match="shards are missing"):
        builder.publish(tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_a_shard_changed_behind_the_ledger_is_not_published(builder, small_dataset, tmp_path):
    for shard in range(builder.layout.shards):
        write(builder, small_dataset, shard)
    file = builder.store / "signs/c/1/0/0"
    file.write_bytes(bytes([*file.read_bytes()[:-1], 0xAA]))
    with pytest.raises(GradshardError, match="is not what was written there"):
        builder.publish(tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_what_killed_writers_left_is_swept(builder, small_dataset, tmp_path):
    for shard in range(builder.layout.shards):
        write(builder, small_dataset, shard)
    (builder.store / "signs/c/0/0/0.deadbeef.partial").write_bytes(b"litter")
    builder.publish(tmp_path / "out.zarr")
    published = read_manifest(tmp_path / "out.zarr")
    assert set(contents(tmp_path / "out.zarr")) == {*published.files, "manifest.json"}


def test_the_manifest_names_no_time_host_or_path(small_store, tmp_path):
    manifest = json.loads((Path(small_store.where) / "manifest.json").read_text())
    text = json.dumps({key: value for key, value in manifest.items() if key != "files"})
    assert str(tmp_path) not in text
    assert set(manifest) == {
        *("format", "version", "dataset", "model", "direction", "layout"),
        *("content", "zeros", "files", "versions", "licence", "digest"),
    }


def test_the_card_tells_how_to_read_the_store_without_gradshard(small_store, monkeypatch):
    card = (Path(small_store.where) / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(Path(small_store.where).parent)
    names = {}
    exec(code, names)
    expected = random_signs(700, 784, seed=0)[: len(names["signs"])].reshape(-1, 1, 28, 28)
    assert np.array_equal(names["signs"], expected)


@pytest.mark.parametrize(
    ("architecture", "told", "options"),
    [
        ("D", True, "--model M.safetensors --dataset digits.zarr\n"),
        ("torch.nn.Sequential", False, "--model WEIGHTS --dataset DATASET --architecture package.module:factory\n"),
        ("mine:net", False, "--model WEIGHTS --dataset DATASET --architecture mine:net\n"),
    ],
)
def test_the_card_names_files_of_the_origin_only_if_they_are_known(small_dataset, architecture, told, options):
    spec = store_spec(small_dataset)
    record = {"architecture": architecture, "weights_sha256": "1" * 64 if told else spec.model.digest}
    page = card(spec.model_copy(update={"model": spec.model.model_copy(update=record)}), zeros=0, files={})
    assert f"gradshard store audit M.zarr {options}" in page


def test_a_store_is_a_plain_zarr_group_that_says_how_it_is_encoded(small_store):
    group = zarr.open_group(Path(small_store.where), mode="r")
    assert "sign = 2 * plane0 + plane1 - 1" in group.attrs["encoding"]
    assert group["signs"].fill_value == 255


def test_opening_a_folder_that_was_never_published_says_so(builder, tmp_path):
    for path in (builder.store, tmp_path / "nothing.zarr"):
        with pytest.raises(GradshardError, match="no published sign store"):
            open_store(path)
