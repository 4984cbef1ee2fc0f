"""Litter that systems leave in a store's folder harms nobody; what somebody put there is told as such."""

import fnmatch
from pathlib import Path

import pytest

from gradshard.storage.formats.store_paths import expected_files
from gradshard.storage.maintenance.strangers import is_litter, strangers

LITTER = [
    ".DS_Store",
    "signs/.DS_Store",
    "signs/c/0/0/._0",
    "Thumbs.db",
    "desktop.ini",
    "labels/.nfs000000000012ab3400000001",
    ".fuse_hidden0000000100000001",
    "@eaDir/README.md@SynoEAStream",
]


@pytest.mark.parametrize("name", LITTER)
def test_litter_is_told_apart_from_what_somebody_put_there(small_store, name):
    folder = Path(small_store.where)
    for put in (name, "notes.txt", "signs/c/0/0/0.deadbeef.partial"):
        (folder / put).parent.mkdir(parents=True, exist_ok=True)
        (folder / put).write_bytes(b"")
    foreign = ["notes.txt", "signs/c/0/0/0.deadbeef.partial"]
    assert strangers(folder, small_store.manifest) == ([name], foreign)


def test_no_file_of_a_store_is_taken_for_litter():
    assert not any(map(is_litter, expected_files(100)))


def test_dvc_ignores_litter_so_that_no_output_looks_changed_by_it():
    ignored = (Path(__file__).parents[3] / ".dvcignore").read_text().splitlines()
    for name in (".DS_Store", "._0", "Thumbs.db", "desktop.ini", ".nfs0001"):
        assert is_litter(name)
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored), name
