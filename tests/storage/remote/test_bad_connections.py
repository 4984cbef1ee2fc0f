"""Connections that break, servers that send something else, and places that are none: one sentence, nothing lost."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradshard.storage.errors import AlteredError, GradshardError
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.store_paths import signs_file
from gradshard.storage.remote import retries
from gradshard.storage.remote.cache import open_remote
from gradshard.storage.remote.location import manifest_at, open_location
from tests.helpers import broken_servers, servers
from tests.helpers.places import serve
from tests.helpers.transfers import (
    contents,
    one_sentence,
    pulled,
    pushed,
)


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
