"""Push and pull between real places: folders, servers of S3, Google, Azure, the hub and SSH, and HTTP servers."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.store_paths import MANIFEST, signs_file
from gradshard.storage.remote import transfer
from gradshard.storage.remote.archive import export_archive, import_archive
from gradshard.storage.remote.claims import PENDING
from gradshard.storage.remote.transfer import pull, push
from tests.helpers.places import serve
from tests.helpers.transfers import (
    StoppedError,
    change_last_byte,
    contents,
    forbidden,
    one_sentence,
    pulled,
    pushed,
    stop_after,
)


def test_a_store_arrives_byte_for_byte_there_and_back(place, source, tmp_path):
    manifest = read_manifest(source)
    assert sum(pushed(source, place.url)) == manifest.size
    assert place.contents() == contents(source)
    assert sum(pulled(place.url, tmp_path / "back.zarr")) == manifest.size
    assert contents(tmp_path / "back.zarr") == contents(source)
    assert not any((tmp_path / ".partial").glob("*/*"))


def test_a_store_is_pulled_byte_for_byte_with_and_without_ranges(web, source, tmp_path):
    pulled(serve(source, web), tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)
    assert sorted(set(web.fetched("/M.zarr"))) == sorted(contents(source))


def test_info_tells_what_the_store_at_a_place_is(place, source, says):
    pushed(source, place.url)
    code, out, _ = says("store", "info", place.url, "--json")
    assert (code, json.loads(out)["digest"]) == (0, read_manifest(source).digest)


def test_info_reads_the_manifest_and_nothing_else(web, source, says):
    code, out, _ = says("store", "info", serve(source, web), "--json")
    assert (code, json.loads(out)["digest"]) == (0, read_manifest(source).digest)
    assert web.fetched("/M.zarr") == ["manifest.json"]


def test_what_is_no_store_is_told_in_one_sentence(web, says, tmp_path):
    for command in (("info", f"{web.url}/M.zarr"), ("pull", f"{web.url}/M.zarr", tmp_path / "back.zarr")):
        code, _, err = says("store", *command)
        assert "no published sign store at" in one_sentence(code, err)
    assert not (tmp_path / "back.zarr").exists()


def test_another_store_at_the_place_is_never_overwritten(place, source, other_store):
    pushed(source, place.url)
    with pytest.raises(GradshardError, match="holds another store"):
        pushed(Path(other_store.where), place.url)
    assert place.contents() == contents(source)


@pytest.mark.parametrize("obstacle", ["another store", "a folder", "an empty folder"])
def test_a_pull_overwrites_nothing(nginx, source, other_store, tmp_path, obstacle):
    target = tmp_path / "target.zarr"
    if obstacle == "another store":
        shutil.copytree(other_store.where, target)
    else:
        target.mkdir()
        if obstacle == "a folder":
            (target / "notes.txt").write_text("mine")
    before = contents(target)
    with pytest.raises(GradshardError, match="is there already"):
        pulled(serve(source, nginx), target)
    assert contents(target) == before
    assert set(nginx.fetched("/M.zarr")) == {"manifest.json"}


def test_the_same_store_is_not_sent_or_fetched_twice(place, source, tmp_path):
    size = read_manifest(source).size
    pushed(source, place.url)
    assert sum(pushed(source, place.url)) == size
    assert place.contents() == contents(source)
    pulled(place.url, tmp_path / "back.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "back.zarr").rglob("*")}
    assert sum(pulled(place.url, tmp_path / "back.zarr")) == size
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "back.zarr").rglob("*")} == before


def test_a_push_that_stops_in_the_middle_leaves_no_store_and_is_finished_by_another(file_by_file, source, tmp_path):
    with pytest.raises(StoppedError):
        push(source, file_by_file.url, advance=stop_after(10))
    there = file_by_file.contents()
    assert "manifest.json" not in there
    assert len(there) > 5
    with pytest.raises(GradshardError, match="no published sign store"):
        pulled(file_by_file.url, tmp_path / "back.zarr")
    assert not (tmp_path / "back.zarr").exists()
    pushed(source, file_by_file.url)
    assert file_by_file.contents() == contents(source)


def test_what_an_earlier_push_sent_is_not_sent_again(source, tmp_path):
    with pytest.raises(StoppedError):
        push(source, str(tmp_path / "shared"), advance=stop_after(10))
    sent = {path: path.stat().st_ino for path in (tmp_path / "shared").rglob("*") if path.is_file()}
    del sent[tmp_path / "shared" / PENDING]
    pushed(source, str(tmp_path / "shared"))
    assert {path: path.stat().st_ino for path in sent} == sent


@pytest.mark.parametrize("harm", ["missing", "damaged", "cut"])
def test_a_store_that_is_there_and_damaged_is_mended_by_a_pull_or_an_import(source, tmp_path, harm):
    export_archive(source, tmp_path / "M.zip", advance=lambda _: None)
    mended = {
        "pulled": lambda target: pulled(str(source), target),
        "imported": lambda target: import_archive(
            tmp_path / "M.zip", target, digest=None, on_wait=forbidden, advance=lambda _: None
        ),
    }
    for name, mend in mended.items():
        shutil.copytree(source, tmp_path / name)
        _harm(tmp_path / name / signs_file(3), harm)
        mend(tmp_path / name)
        assert contents(tmp_path / name) == contents(source)


@pytest.mark.parametrize("harm", ["missing", "damaged", "cut"])
def test_a_published_store_of_a_folder_is_mended_by_a_push(source, tmp_path, harm):
    pushed(source, str(tmp_path / "there.zarr"))
    _harm(tmp_path / "there.zarr" / signs_file(3), harm)
    pushed(source, str(tmp_path / "there.zarr"))
    assert contents(tmp_path / "there.zarr") == contents(source)


def test_a_published_store_that_lacks_a_file_elsewhere_is_mended_by_a_push(sshd, source, tmp_path):
    url = sshd.url(tmp_path / "there.zarr")
    pushed(source, url)
    _harm(tmp_path / "there.zarr" / signs_file(3), "missing")
    pushed(source, url)
    assert contents(tmp_path / "there.zarr") == contents(source)


def _harm(path, how):
    if how == "damaged":
        change_last_byte(path)
        return
    content = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(content[:-1])


def test_the_same_store_pushed_by_several_processes_at_once_ends_whole(source, tmp_path):
    code = (
        "import sys; from pathlib import Path; from gradshard.storage.remote.transfer import push\n"
        "input(); push(Path(sys.argv[1]), sys.argv[2], advance=lambda _: None)"
    )
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "there.zarr")]
    pushing = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    for process in pushing:
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait(300) for process in pushing] == [0, 0, 0]
    assert contents(tmp_path / "there.zarr") == contents(source)


@pytest.mark.parametrize("gets", ["begun", "done"])
def test_another_push_of_the_same_store_may_begin_or_end_at_any_moment(source, tmp_path, monkeypatch, gets):
    """Between the look for another push's mark and the look for foreign files."""
    place, look = str(tmp_path / "there.zarr"), transfer.is_claimed

    def meanwhile(location, manifest):
        found = look(location, manifest)
        monkeypatch.setattr(transfer, "is_claimed", look)
        if gets == "done":
            pushed(source, place)
        else:
            with pytest.raises(StoppedError):
                push(source, place, advance=stop_after(3))
        return found

    monkeypatch.setattr(transfer, "is_claimed", meanwhile)
    pushed(source, place)
    assert contents(tmp_path / "there.zarr") == contents(source)


def test_a_store_that_appears_at_the_target_meanwhile_is_not_overwritten(source, other_store, tmp_path):
    target, calls = tmp_path / "target.zarr", itertools.count(1)

    def advance(_):
        if next(calls) == 10:
            shutil.copytree(other_store.where, target)

    with pytest.raises(GradshardError, match="is there already and is the store"):
        pull(str(source), target, digest=None, on_wait=forbidden, advance=advance)
    assert contents(target) == contents(Path(other_store.where))


def test_what_a_killed_pull_was_writing_is_no_part_of_the_store(source, tmp_path):
    with pytest.raises(StoppedError):
        pull(str(source), tmp_path / "back.zarr", digest=None, on_wait=forbidden, advance=stop_after(10))
    unfinished = next((tmp_path / ".partial").glob("*/store"))
    (unfinished / ".croissant.json.k1lled00.tmp").write_bytes(b"{")
    pulled(str(source), tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)


def test_what_a_killed_push_to_a_folder_was_writing_is_no_part_of_the_store(source, tmp_path):
    for unfinished in (f".{PENDING}.k1lled00.tmp", "labels/c/.3.k1lled00.tmp"):
        there = tmp_path / f"{len(unfinished)}.zarr"
        if "/" in unfinished:
            with pytest.raises(StoppedError):
                push(source, str(there), advance=stop_after(30))
        (there / unfinished).parent.mkdir(parents=True, exist_ok=True)
        (there / unfinished).write_bytes(b"")
        pushed(source, str(there))
        assert contents(there) == contents(source)


@pytest.mark.parametrize("way", ["pull", "push"])
def test_a_manifest_whose_line_ends_were_changed_is_mended_where_it_is(source, tmp_path, way):
    place = tmp_path / "there.zarr"
    pushed(source, str(place))
    manifest = place / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b"\n", b"\r\n"))
    if way == "pull":
        pulled(str(source), place)
    else:
        pushed(source, str(place))
    assert contents(place) == contents(source)


def test_a_link_to_nothing_at_the_target_is_told_before_anything_is_fetched(source, tmp_path):
    (tmp_path / "target.zarr").symlink_to(tmp_path / "gone.zarr")
    with pytest.raises(GradshardError, match=r"target\.zarr is a link to .*gone\.zarr, where nothing is: remove it"):
        pulled(str(source), tmp_path / "target.zarr")
    assert not (tmp_path / ".partial").exists()


@pytest.mark.parametrize("name", ["a::b/M.zarr", "hf", "file:M.zarr", "what?/M.zarr", "a#b.zarr"])
def test_a_path_is_a_path_whatever_drivers_of_urls_would_read_into_it(source, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    pushed(source, name)
    assert contents(tmp_path / name) == contents(source)


def test_a_push_stopped_after_its_last_file_is_tidied_by_another(file_by_file, source):
    pushed(source, file_by_file.url)
    file_by_file.put(PENDING, read_manifest(source).digest.encode())
    pushed(source, file_by_file.url)
    assert file_by_file.contents() == contents(source)


def test_the_unfinished_push_of_another_store_is_left_alone(file_by_file, source, other_store):
    with pytest.raises(StoppedError):
        push(Path(other_store.where), file_by_file.url, advance=stop_after(5))
    before = file_by_file.contents()
    with pytest.raises(GradshardError, match="unfinished push of another store"):
        pushed(source, file_by_file.url)
    assert file_by_file.contents() == before


def test_nothing_is_pushed_among_foreign_files(place, source):
    place.put("notes.txt", b"mine")
    with pytest.raises(GradshardError, match="is not empty and holds no store"):
        pushed(source, place.url)
    assert place.contents() == {"notes.txt": b"mine"}


def test_nothing_is_pushed_over_http(nginx, source, says):
    code, _, err = says("store", "push", source, f"{nginx.url}/M.zarr")
    assert "nothing can be pushed over HTTP" in one_sentence(code, err)
    assert nginx.requests() == []


def test_a_damaged_store_is_not_published(place, source):
    change_last_byte(source / signs_file(3))
    with pytest.raises(GradshardError, match=rf"{signs_file(3)} is damaged"):
        pushed(source, place.url)
    assert "manifest.json" not in place.contents()
