"""What a store says of itself to others: croissant.json, and a table of its rows that needs no Zarr."""

import json
import shutil

import mlcroissant
import numpy as np
import pytest

from gradshard.storage.formats import manifest, sign_writer
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.store_paths import CROISSANT, DESCRIPTIONS, MANIFEST, ROWS, labels_file
from tests.helpers.known_stores import KnownStore, publish, spec_of
from tests.helpers.transfers import pulled


@pytest.fixture
def store(tmp_path) -> KnownStore:
    return publish(tmp_path / "M.zarr", spec_of(700, chunk=16, shard=64))


def described(store: KnownStore) -> dict:
    return json.loads((store.path / CROISSANT).read_text())


def test_mlcroissant_alone_reads_row_label_and_shard_of_each_row(store):
    dataset = mlcroissant.Dataset(jsonld=str(store.path / CROISSANT))
    records = list(dataset.records("rows"))
    assert [record["rows/row"] for record in records] == list(range(700))
    assert [record["rows/label"] for record in records] == store.labels.tolist()
    assert [record["rows/shard"] for record in records] == [row // 64 for row in range(700)]
    assert dataset.metadata.ctx.is_v1_1()


def test_mlcroissant_misses_only_what_a_store_does_not_know(store):
    issues = mlcroissant.Dataset(jsonld=str(store.path / CROISSANT)).metadata.ctx.issues
    assert not issues.errors
    assert {warning.split('"')[1].rpartition("/")[2] for warning in issues.warnings} == {"citeAs", "datePublished"}


def test_mlcroissant_refuses_rows_that_were_changed(store):
    content = (store.path / ROWS).read_bytes()
    (store.path / ROWS).write_bytes(content.replace(b"row", b"raw"))
    with pytest.raises(Exception, match=r"Download\(rows.parquet\)"):
        list(mlcroissant.Dataset(jsonld=str(store.path / CROISSANT)).records("rows"))


def test_croissant_names_every_file_with_the_hash_and_size_of_the_manifest(store):
    files = {entry["contentUrl"]: (entry["sha256"], entry["contentSize"]) for entry in described(store)["distribution"]}
    promised = {name: (record.sha256, f"{record.size} B") for name, record in store.manifest.files.items()}
    assert files == {name: record for name, record in promised.items() if name != CROISSANT}


def test_croissant_tells_licence_and_provenance(store):
    told, known = described(store), store.manifest
    assert told["license"] == "https://spdx.org/licenses/CC0-1.0.html"
    dataset, model = told["prov:wasDerivedFrom"]
    assert dataset["sc:identifier"] == f"sha256:{known.dataset.digest}"
    assert model["sc:identifier"] == f"sha256:{known.model.digest}"
    activity = told["prov:wasGeneratedBy"]
    assert "exact, label predicted, eval mode, float32" in activity["prov:label"]
    agents = {agent["prov:label"] for agent in activity["prov:wasAssociatedWith"]}
    assert agents == {f"{name} {version}" for name, version in known.versions.items()}


def test_a_store_whose_publishing_was_cut_short_ends_with_the_same_bytes(tmp_path, monkeypatch, store):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    target = tmp_path / "again" / "M.zarr"
    for step in ("write_row_table", "croissant", "replace_folder"):
        with monkeypatch.context() as patch:
            patch.setattr(sign_writer, step, killed)
            with pytest.raises(KeyboardInterrupt):
                publish(target, spec_of(700, chunk=16, shard=64))
        assert not target.exists()
    assert publish(target, spec_of(700, chunk=16, shard=64)).contents() == store.contents()


def without(store: KnownStore, *names: str) -> KnownStore:
    """Make a store as it was before descriptions were written."""
    old = store.manifest
    files = {name: record for name, record in old.files.items() if name not in names}
    sealed = manifest.finalize(old.spec, content=old.content, zeros=old.zeros, versions=old.versions, files=files)
    (store.path / MANIFEST).write_text(sealed.text())
    for name in names:
        (store.path / name).unlink()
    return store


def test_a_store_from_before_them_is_valid_and_equal_in_content(store, tmp_path):
    new = store.manifest
    old = without(store, *DESCRIPTIONS)
    assert old.manifest.content == new.content
    assert old.verify() == []
    assert np.array_equal(open_store(old.path).load_labels(), old.labels)
    pulled(str(old.path), tmp_path / "pulled.zarr")
    assert read_manifest(tmp_path / "pulled.zarr") == old.manifest


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_manifest_that_names_only_one_of_them_is_refused(store, name):
    with pytest.raises(ValueError, match="names 27 files"):
        without(store, name)


@pytest.mark.parametrize("name", DESCRIPTIONS)
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_repair_makes_them_again_without_a_model(store, name, damage):
    whole = store.contents()
    if damage == "missing":
        (store.path / name).unlink()
    else:
        (store.path / name).write_bytes(whole[name][:-2] + b"xx")
    faults = store.verify()
    assert {fault.file for fault in faults} == {name}
    assert store.repair(faults) == []
    assert store.computed == []
    assert store.contents() == whole


def test_rows_are_not_made_again_from_labels_that_are_not_whole(store):
    (store.path / ROWS).unlink()
    shutil.copy(store.path / labels_file(0), store.path / labels_file(1))
    faults = [fault for fault in store.verify() if fault.file == ROWS]
    left = store.repair(faults)
    assert [fault.file for fault in left] == [ROWS]
    (store.path / labels_file(1)).unlink()
    assert "missing or damaged" in store.repair(faults)[0].what
    assert not (store.path / ROWS).exists()


def test_a_description_that_is_too_large_is_refused(store):
    files = dict(store.manifest.files)
    files[ROWS] = files[ROWS].model_copy(update={"size": 1 << 40})
    old = store.manifest
    with pytest.raises(ValueError, match=r"declares a larger file, rows\.parquet"):
        manifest.finalize(old.spec, content=old.content, zeros=old.zeros, versions=old.versions, files=files)


def test_a_licence_that_nobody_stated_is_left_out(tmp_path):
    spec = spec_of(64, chunk=16, shard=64).model_copy(update={"licence": None})
    assert "license" not in described(publish(tmp_path / "N.zarr", spec))
