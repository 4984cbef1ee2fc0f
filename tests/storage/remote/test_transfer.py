"""Push and pull between real places: folders, servers of S3, Google, Azure, the hub and SSH, and HTTP servers."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradshard.storage.errors import AlteredError, GradshardError
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.store_paths import MANIFEST, signs_file
from gradshard.storage.remote import retries
from gradshard.storage.remote.archive import export_archive, import_archive
from gradshard.storage.remote.cache import open_remote
from gradshard.storage.remote.claims import PENDING
from gradshard.storage.remote.location import manifest_at, open_location
from gradshard.storage.remote.transfer import pull, push
from tests.helpers import broken_servers, servers
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


@pytest.fixture(params=["nginx", "plain_http"])
def web(request):
    """A server with ranges, and one without."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(retries, "_PAUSE_SECONDS", 0.0)


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
    assert [process.wait(60) for process in pushing] == [0, 0, 0]
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


def test_a_connection_cut_once_is_made_again(broken_http, source, tmp_path):
    broken_http.faults, broken_http.once = {signs_file(3): broken_servers.cut}, {signs_file(3)}
    pulled(broken_http.url, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)
    assert broken_http.fetched().count(signs_file(3)) == 2


def test_a_connection_that_is_always_cut_keeps_what_arrived_for_a_healthy_server(
    broken_http, nginx, source, tmp_path, says
):
    last = list(read_manifest(source).files)[-1]
    broken_http.faults = {last: broken_servers.cut}
    code, _, err = says("store", "pull", broken_http.url, tmp_path / "back.zarr")
    assert f"{broken_http.url}/{last}" in one_sentence(code, err)
    assert "run the same again" in err
    assert not (tmp_path / "back.zarr").exists()
    arrived = contents(next((tmp_path / ".partial").glob("*/store")))
    assert len(arrived) > 20
    assert last not in arrived
    assert all(content == (source / name).read_bytes() for name, content in arrived.items())
    assert says("store", "pull", serve(source, nginx), tmp_path / "back.zarr")[0] == 0
    assert contents(tmp_path / "back.zarr") == contents(source)
    assert sorted(nginx.fetched("/M.zarr")) == sorted(
        # the command line reads the manifest once more, for the size
        ["manifest.json", *(contents(source).keys() - arrived.keys())]
    )


def test_a_connection_to_an_ssh_server_that_breaks_is_one_sentence_and_the_pull_goes_on_later(
    sshd, source, tmp_path, says
):
    with broken_servers.proxy(sshd.port) as weak:
        sshd.know(weak.port)
        manifest_at(sshd.url(source, port=weak.port))
        weak.limit, weak.cuts = weak.passed + 6000, True
        code, _, err = says("store", "pull", sshd.url(source, port=weak.port), tmp_path / "back.zarr")
    one_sentence(code, err)
    assert not (tmp_path / "back.zarr").exists()
    pulled(sshd.url(source), tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)


@pytest.mark.parametrize("name", ["signs/c/3/0/0", "labels/c/7", "signs/zarr.json"])
def test_a_missing_file_is_an_error_and_never_fill_values(web, source, tmp_path, name):
    url = serve(source, web)
    (web.folder / "M.zarr" / name).unlink()
    with pytest.raises(GradshardError, match=rf"{name} is missing"):
        pulled(url, tmp_path / "back.zarr")
    assert not (tmp_path / "back.zarr").exists()


@pytest.mark.parametrize("way", ["read", "load"])
def test_a_missing_shard_is_an_error_to_who_streams(web, source, tmp_path, way):
    url = serve(source, web)
    (web.folder / "M.zarr" / signs_file(3)).unlink()
    store = open_remote(url, tmp_path / "cache", limit=1 << 30)
    shard = store.layout.shard
    assert len(store.read(0, 3 * shard)) == 3 * shard
    with pytest.raises(GradshardError, match=rf"{signs_file(3)} is missing"):
        store.load() if way == "load" else store.read(0, 3 * shard + 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [(broken_servers.changed, "is not the file of the manifest"), (broken_servers.endless, "bytes but gave more")],
    ids=["a wrong byte", "more than promised"],
)
def test_a_server_that_sends_something_else_is_refused(broken_http, source, tmp_path, fault, said):
    broken_http.faults = {signs_file(3): fault}
    with pytest.raises(GradshardError, match=rf"{signs_file(3)} .*{said}"):
        pulled(broken_http.url, tmp_path / "back.zarr")
    assert not (tmp_path / "back.zarr").exists()
    store = open_remote(broken_http.url, tmp_path / "cache", limit=1 << 30)
    with pytest.raises(GradshardError, match=rf"{signs_file(3)} .*{said}"):
        store.load()
    assert not (tmp_path / "cache" / store.manifest.digest[:16] / signs_file(3)).exists()
    # What a connection's buffers hold may be sent in vain.
    assert broken_http.sent < 1 << 27


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + bytes(2)])
@pytest.mark.parametrize("kind", ["folder", "plain_http", "s3"])
def test_a_file_of_another_size_at_its_source_is_damaged_there_and_not_asked_for_again(
    kind, change, request, source, tmp_path, monkeypatch
):
    server = None if kind == "folder" else request.getfixturevalue(kind)
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=pytest.fail))
    content = change((source / signs_file(3)).read_bytes())
    if kind == "s3":
        url = f"{server.url}/M.zarr"
        pushed(source, url)
        server.put(f"{url}/{signs_file(3)}", content)
    else:
        folder = server.folder / "M.zarr" if server else tmp_path / "shared/M.zarr"
        shutil.copytree(source, folder)
        (folder / signs_file(3)).write_bytes(content)
        url = f"{server.url}/M.zarr" if server else str(folder)
    with pytest.raises(AlteredError, match=rf"{signs_file(3)} has {len(content)} bytes, .* damaged; tell its owner"):
        pulled(url, tmp_path / "back.zarr")
    assert not (tmp_path / "back.zarr").exists()


def test_a_file_may_take_as_long_as_it_takes_while_something_comes(broken_http):
    fs = open_location(broken_http.url).fs
    assert fs.exists(f"{broken_http.url}/manifest.json")
    assert (fs._session.timeout.total, fs._session.timeout.sock_read) == (None, 60)


def test_an_endless_manifest_is_refused(broken_http, tmp_path):
    broken_http.faults = {"manifest.json": broken_servers.endless}
    with pytest.raises(GradshardError, match="is no manifest of a sign store"):
        manifest_at(broken_http.url)


def test_another_store_than_the_one_asked_for_is_refused(nginx, source, other_store, tmp_path, says):
    url, digest = serve(source, nginx), read_manifest(source).digest
    advised = {other_store.manifest.digest: "check the address", digest[1:13]: "check the address"}
    for wrong, advice in (advised | {digest[:11]: "is too short to name a store: give 12 characters"}).items():
        code, _, err = says("store", "pull", url, tmp_path / "back.zarr", "--digest", wrong)
        assert advice in one_sentence(code, err)
    assert set(nginx.fetched("/M.zarr")) == {"manifest.json"}
    assert not (tmp_path / "back.zarr").exists()
    assert says("store", "pull", url, tmp_path / "back.zarr", "--digest", digest[:12].upper())[0] == 0
    assert contents(tmp_path / "back.zarr") == contents(source)


@pytest.mark.parametrize(
    ("url", "library", "remedy"),
    [
        ("s3://bucket/M.zarr", "s3fs", "pip install 'gradshard[s3]'"),
        ("ssh://host/M.zarr", "sshfs", "pip install 'gradshard[ssh]'"),
        ("https://host/M.zarr", "aiohttp", "pip install 'gradshard[http]'"),
        ("gs://bucket/M.zarr", "gcsfs", "pip install 'gradshard[gs]'"),
        ("az://container/M.zarr", "adlfs", "pip install 'gradshard[az]'"),
        ("hf://datasets/owner/name", "huggingface_hub", "pip install 'gradshard[hf]'"),
        ("hf://datasets/owner/name", "aiohttp", "pip install 'gradshard[hf]'"),
    ],
)
def test_a_url_without_its_library_is_told_in_one_sentence(url, library, remedy, tmp_path):
    code = f"import sys; sys.modules[{library!r}] = None; from gradshard.stages.cli import main; main()"
    command = [sys.executable, "-c", code, "store", "info", url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert remedy in one_sentence(done.returncode, done.stderr)


def test_a_url_of_an_unknown_kind_is_told_in_one_sentence(says):
    code, _, err = says("store", "info", "nonsense://host/M.zarr")
    assert "nonsense" in one_sentence(code, err)


def test_a_place_in_the_home_folder_of_nobody_is_told_in_one_sentence(says):
    code, _, err = says("store", "list", "~nobody-of-that-name/stores")
    assert "~nobody-of-that-name/stores: there is no home folder for ~nobody-of-that-name" in one_sentence(code, err)


@pytest.mark.slow
def test_a_server_that_is_not_there_is_told_in_one_sentence(sshd, s3, monkeypatch, says):
    nobody = servers.free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody}")
    for url in (f"http://127.0.0.1:{nobody}/M.zarr", sshd.url(Path("/M.zarr"), port=nobody), "s3://stores/M.zarr"):
        code, _, err = says("store", "info", url)
        assert url in one_sentence(code, err)


def test_an_unknown_host_is_not_trusted(sshd, source, says):
    assert manifest_at(sshd.url(source)) == read_manifest(source)
    sshd.forget()
    open_location(sshd.url(source)).fs.clear_instance_cache()
    code, _, err = says("store", "info", sshd.url(source))
    assert "host key" in one_sentence(code, err).lower()
