"""A store as one file, and out of it again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.store_paths import CARD
from gradshard.storage.remote.archive import import_archive
from tests.helpers.archives import VICTIM, exported, imported
from tests.helpers.projects import call
from tests.helpers.stores import build_store
from tests.helpers.transfers import contents, forbidden


def test_a_store_goes_into_one_file_and_back_byte_for_byte(source, small_store, archive, tmp_path):
    assert sum(imported(archive, tmp_path / "back.zarr")) == small_store.manifest.size
    assert contents(tmp_path / "back.zarr") == contents(source)
    assert sum(exported(source, tmp_path / "again.zip")) == small_store.manifest.size


def test_equal_stores_give_equal_archives(small_dataset, source, archive, tmp_path):
    for name in ("b1", "b2"):
        build_store(tmp_path / name, small_dataset, tmp_path / f"{name}.zarr")
    (tmp_path / "b1.zarr" / CARD).chmod(0o600)
    (tmp_path / "b1.zarr" / CARD).touch()
    exported(tmp_path / "b1.zarr", tmp_path / "b1.zip")
    assert (tmp_path / "b1.zip").read_bytes() == archive.read_bytes()
    imported(archive, tmp_path / "back.zarr")
    exported(tmp_path / "back.zarr", tmp_path / "back.zip")
    assert (tmp_path / "back.zip").read_bytes() == archive.read_bytes()


def test_the_archive_of_another_store_is_another_file(other_store, archive, tmp_path):
    exported(Path(other_store.where), tmp_path / "N.zip")
    assert (tmp_path / "N.zip").read_bytes() != archive.read_bytes()


def test_zarr_opens_an_archive_as_it_is(small_store, archive):
    group = zarr.open_group(ZipStore(archive, mode="r"), mode="r")
    assert np.array_equal(group["signs"][:], small_store.load())
    assert np.array_equal(group["labels"][:], small_store.load_labels())


def test_an_archive_that_is_there_is_not_overwritten(source, archive, monkeypatch, capsys):
    archive.write_bytes(b"mine")
    assert call(monkeypatch, "store", "export", str(source), str(archive)) == 2
    assert "is there already" in capsys.readouterr().err
    assert archive.read_bytes() == b"mine"


def test_a_damaged_store_is_not_exported(source, tmp_path):
    content = (source / VICTIM).read_bytes()
    (source / VICTIM).write_bytes(bytes([*content[:-1], content[-1] ^ 1]))
    (tmp_path / "outbox").mkdir()
    with pytest.raises(GradshardError, match=f"{VICTIM} is damaged"):
        exported(source, tmp_path / "outbox" / "M.zip")
    assert list((tmp_path / "outbox").iterdir()) == []


@pytest.mark.parametrize("obstacle", ["another store", "a folder", "an empty folder"])
def test_an_import_overwrites_nothing(archive, other_store, tmp_path, obstacle):
    target = tmp_path / "target.zarr"
    if obstacle == "another store":
        shutil.copytree(other_store.where, target)
    else:
        target.mkdir()
        if obstacle == "a folder":
            (target / "notes.txt").write_text("mine")
    before = contents(target)
    with pytest.raises(GradshardError, match="is there already"):
        imported(archive, target)
    assert contents(target) == before


def test_the_same_store_is_not_unpacked_twice(archive, small_store, tmp_path):
    imported(archive, tmp_path / "back.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "back.zarr").rglob("*")}
    assert sum(imported(archive, tmp_path / "back.zarr")) == small_store.manifest.size
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "back.zarr").rglob("*")} == before


def test_another_store_than_the_one_asked_for_is_refused(
    archive, source, other_store, small_store, refused_import, tmp_path
):
    digest = small_store.manifest.digest
    assert "check the address" in refused_import(archive, "--digest", other_store.manifest.digest)
    assert "is too short to name a store" in refused_import(archive, "--digest", digest[:11])
    imported(archive, tmp_path / "back.zarr", digest=digest[:12])
    assert contents(tmp_path / "back.zarr") == contents(source)


def test_an_import_that_stops_in_the_middle_leaves_no_store_and_goes_on(archive, source, tmp_path):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_archive(archive, tmp_path / "back.zarr", digest=None, on_wait=forbidden, advance=stop)
    assert not (tmp_path / "back.zarr").exists()
    imported(archive, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)


def test_what_lies_in_the_way_of_an_archive_is_told_in_one_sentence(tmp_path, refused_import):
    (tmp_path / "inbox").mkdir()
    assert "No such file" in refused_import(tmp_path / "inbox" / "none.zip")
    (tmp_path / "inbox" / "folder.zip").mkdir()
    folder = tmp_path / "inbox" / "folder.zip"
    assert f"is a folder and no archive: copy a store by `gradshard store pull {folder} TARGET`" in refused_import(
        folder
    )


def test_the_progress_of_an_import_ends_at_all_bytes(archive, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "store", "import", str(archive), str(tmp_path / "back.zarr")) == 0
    size = archive.stat().st_size
    assert f"{size}/{size} bytes" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "verify"])
def test_an_archive_in_place_of_a_store_is_told_to_be_imported(archive, monkeypatch, capsys, command):
    assert call(monkeypatch, "store", command, str(archive)) == 2
    assert f"run `gradshard store import {archive} TARGET`" in capsys.readouterr().err


def test_an_archive_may_follow_other_bytes(archive, source, tmp_path):
    """As one that was put behind a program does, which zip files allow."""
    archive.write_bytes(b"#!/bin/sh\n" + archive.read_bytes())
    imported(archive, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)
