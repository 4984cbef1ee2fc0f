"""Places that break: connections are cut, pushes are killed, files there are not what they were."""

import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.store_paths import signs_file
from gradshard.storage.remote import retries
from gradshard.storage.remote.location import open_location
from tests.helpers import broken_servers
from tests.helpers.projects import Project
from tests.helpers.transfers import clear_drivers, contents, one_sentence, pulled, pushed


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(retries, "_PAUSE_SECONDS", 0.0)


def test_a_file_that_was_changed_at_the_place_is_refused(place, source, tmp_path, says):
    pushed(source, place.url)
    content = place.contents()[signs_file(3)]
    place.put(signs_file(3), bytes([*content[:-1], content[-1] ^ 1]))
    code, _, err = says("store", "pull", place.url, tmp_path / "back.zarr")
    assert f"{signs_file(3)} is not the file of the manifest" in one_sentence(code, err)
    assert not (tmp_path / "back.zarr").exists()
    code, out, _ = says("store", "verify", place.url)
    assert code == 1
    assert signs_file(3) in out


def test_a_file_that_is_missing_at_the_place_is_an_error_and_never_fill_values(place, source, tmp_path, says):
    pushed(source, place.url)
    place.remove(signs_file(3))
    code, _, err = says("store", "pull", place.url, tmp_path / "back.zarr")
    assert f"{signs_file(3)} is missing" in one_sentence(code, err)
    assert not (tmp_path / "back.zarr").exists()
    assert says("store", "verify", place.url)[0] == 1


@pytest.mark.parametrize(("size", "ending"), [(0, b"\r"), (1000, b"\r\n"), (6 << 20, b"\r")])
def test_a_file_arrives_whole_however_it_ends(file_by_file, tmp_path, size, ending):
    path = tmp_path / "file"
    path.write_bytes(bytes(size) + ending)
    open_location(file_by_file.url).send(path, "signs/c/0")
    assert file_by_file.contents() == {"signs/c/0": path.read_bytes()}


@pytest.mark.parametrize("kind", ["s3", "gs", "az"])
def test_a_bucket_that_is_not_there_is_told_in_one_sentence(kind, request, source, says, tmp_path):
    request.getfixturevalue(kind)
    code, _, err = says("store", "push", source, f"{kind}://nowhere/M.zarr")
    assert "create it first, or check the address" in one_sentence(code, err)
    code, _, err = says("store", "pull", f"{kind}://nowhere/M.zarr", tmp_path / "back.zarr")
    assert "no published sign store" in one_sentence(code, err)


# Azure's client waits for seconds before it tries again.
@pytest.mark.parametrize("kind", ["s3", "gs", pytest.param("az", marks=pytest.mark.slow), "hf"])
def test_a_connection_that_is_cut_is_made_again(kind, request, source, tmp_path):
    server = request.getfixturevalue(kind)
    url = "hf://datasets/someone/stores/M.zarr" if kind == "hf" else f"{server.url}/M.zarr"
    with broken_servers.proxy(server.port) as weak:
        server.use(weak.port)
        weak.limit, weak.cuts, weak.once = read_manifest(source).size // 2, True, True
        pushed(source, url)
        assert weak.full.is_set()
        weak.full.clear()
        weak.limit = weak.passed + 3000  # in the middle of some request
        clear_drivers()
        pulled(url, tmp_path / "back.zarr")
        assert weak.full.is_set()
    assert contents(tmp_path / "back.zarr") == contents(source)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "gs", "az", "ssh"])
def test_a_killed_push_leaves_no_store_and_is_finished_by_another(kind, request, source, tmp_path):
    """The process is killed while the way to the server, through a proxy, has come to a halt."""
    server = request.getfixturevalue("sshd" if kind == "ssh" else kind)
    with broken_servers.proxy(server.port) as slow:
        slow.limit = read_manifest(source).size // 2
        if kind == "ssh":
            server.know(slow.port)
            url, through = (server.url(tmp_path / "shared", port=port) for port in (server.port, slow.port))
        else:
            url = through = f"{server.url}/M.zarr"
            server.use(slow.port)
        process = Project(tmp_path).popen("store", "push", str(source), through)
        assert slow.full.wait(300)
        process.kill()
        process.communicate(timeout=30)
    if kind != "ssh":
        server.use(server.port)

    def there():
        return contents(tmp_path / "shared") if kind == "ssh" else server.contents(url)

    assert "manifest.json" not in there()
    assert len(there()) > 3
    with pytest.raises(GradshardError, match="no published sign store"):
        pulled(url, tmp_path / "back.zarr")
    pushed(source, url)
    assert there() == contents(source)
