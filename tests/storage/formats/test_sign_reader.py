"""Reading a published store: what does not fit, or is damaged, is an error and never a plausible sign."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.formats.digests import digest_of
from gradshard.storage.formats.sign_reader import open_store


def test_a_store_of_another_dataset_is_refused_and_both_are_named(small_store, small_dataset, digits, tmp_path):
    small_store.check_made_for(small_dataset.train)
    images, labels = (part[1:701] for part in digits["train"])
    splits = {"train": (images, labels), "test": (images[:5], labels[:5])}
    list(write_dataset(tmp_path / "other.zarr", name="other", classes=10, splits=splits))
    other = open_dataset(tmp_path / "other.zarr").train
    with pytest.raises(GradshardError) as caught:
        small_store.check_made_for(other)
    for part in ("digits", small_dataset.train.digest[:12], "other", other.digest[:12], "gradshard precompute M"):
        assert part in str(caught.value)


@pytest.mark.parametrize("method", ["read", "load"])
def test_a_missing_shard_is_an_error_and_never_the_fill_value(small_store, method):
    (Path(small_store.where) / "signs/c/3/0/0").unlink()
    with pytest.raises(GradshardError, match=r"(shard 3|signs/c/3/0/0)"):
        small_store.load() if method == "load" else small_store.read(0, 700)


@pytest.mark.parametrize(("start", "stop"), [(-3, 2), (690, 701), (5, 2)])
def test_rows_that_there_are_not_are_refused(small_store, start, stop):
    with pytest.raises(GradshardError, match=f"has 700 rows and not those from {start} to before {stop}"):
        small_store.read(start, stop)


def test_a_hole_inside_a_shard_is_an_error(small_store):
    layout = small_store.layout
    assert layout.shard > layout.chunk
    start = 2 * layout.shard + layout.chunk
    array = zarr.open_array(Path(small_store.where) / "signs", mode="r+")
    array[start : start + layout.chunk] = 255
    with pytest.raises(GradshardError, match=f"shard 2, rows {start} to {start + 7}: a chunk was never written"):
        small_store.read(0, 700)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.999])
def test_a_flipped_bit_in_a_shard_is_an_error(small_store, position):
    path = Path(small_store.where) / "signs/c/4/0/0"
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(GradshardError, match=r"signs/c/4/0/0 is damaged"):
        small_store.load()


def test_a_flipped_bit_in_a_chunk_is_an_error_even_without_the_manifest(small_store):
    path = Path(small_store.where) / "signs/c/4/0/0"
    content = bytearray(path.read_bytes())
    content[-10] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(GradshardError, match="shard 4, rows 152 to 159: a chunk: its checksum is wrong"):
        small_store.read(0, 700)


def sealed(manifest, *, rows):
    """Change a manifest's rows and give the digest that it then must have."""
    manifest["dataset"]["rows"] = rows
    return digest_of({key: value for key, value in manifest.items() if key != "digest"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.update(version=2), "sign store of format version 2, and this gradshard reads version 1"),
        (lambda m: m.update(format="other"), "format: Input should be 'gradshard-signs'"),
        (lambda m: m["dataset"].update(rows=-1), r"dataset.rows: Input should be greater than 0"),
        (lambda m: m["dataset"].update(rows=701), "was changed after it was written"),
        (
            lambda m: m.update(digest=sealed(m, rows=701)),
            r"signs/zarr.json does not fit the manifest \(its key 'shape'",
        ),
        (lambda m: m.pop("model"), "model: Field required"),
        (lambda m: m["dataset"].update(digest="../x"), r"dataset.digest: String should match"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(small_store, change, sentence):
    path = Path(small_store.where) / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(GradshardError, match=sentence):
        open_store(Path(small_store.where))


def test_a_store_without_arrays_is_refused(small_store):
    shutil.rmtree(Path(small_store.where) / "labels")
    with pytest.raises(GradshardError, match=r"has a manifest but no labels/zarr\.json"):
        open_store(Path(small_store.where))


def test_an_open_store_is_read_after_the_process_went_elsewhere(small_store, tmp_path, monkeypatch):
    planes = small_store.load()
    monkeypatch.chdir(Path(small_store.where).parent)
    store = open_store(Path(Path(small_store.where).name))
    monkeypatch.chdir(tmp_path.parent)
    assert np.array_equal(store.load(), planes)


def test_rows_are_read_alike_in_pieces_and_whole(small_store):
    whole = small_store.load()
    pieces = [small_store.read(start, min(start + 33, 700)) for start in range(0, 700, 33)]
    assert np.array_equal(np.concatenate(pieces), whole)
