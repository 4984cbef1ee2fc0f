"""The servers as fixtures, and what the tests of sharing have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.remote import retries
from tests.helpers import broken_servers, cloud_servers, hub_server, servers
from tests.helpers.archives import exported
from tests.helpers.places import Place, bucket_place, folder_place, hub_place
from tests.helpers.projects import call
from tests.helpers.stores import build_store
from tests.helpers.transfers import clear_drivers, contents


@pytest.fixture(autouse=True)
def _fresh_drivers() -> Iterator[None]:
    """Drivers keep connections by address, and ports come back: no test inherits one."""
    yield
    clear_drivers()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(retries, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def nginx(tmp_path) -> Iterator[servers.WebServer]:
    with servers.nginx(tmp_path / "nginx") as server:
        yield server


@pytest.fixture
def plain_http(tmp_path) -> Iterator[servers.WebServer]:
    with servers.plain_http(tmp_path / "http") as server:
        yield server


@pytest.fixture
def s3(monkeypatch) -> Iterator[cloud_servers.S3]:
    with cloud_servers.s3(monkeypatch) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_port(tmp_path_factory) -> Iterator[int]:
    with cloud_servers.gcs_server(tmp_path_factory.mktemp("gcs")) as port:
        yield port


@pytest.fixture
def gs(gcs_port, monkeypatch) -> cloud_servers.Gcs:
    return cloud_servers.gcs(gcs_port, monkeypatch)


@pytest.fixture(scope="session")
def azure_port(tmp_path_factory) -> Iterator[int]:
    with cloud_servers.azure_server(tmp_path_factory.mktemp("azure")) as port:
        yield port


@pytest.fixture
def az(azure_port, monkeypatch) -> cloud_servers.Azure:
    return cloud_servers.azure(azure_port, monkeypatch)


@pytest.fixture
def hf(tmp_path, monkeypatch) -> Iterator[hub_server.Hub]:
    with hub_server.hub(tmp_path / "huggingface", monkeypatch) as hub:
        yield hub


@pytest.fixture
def sshd(tmp_path, monkeypatch) -> Iterator[servers.Sshd]:
    with servers.sshd(tmp_path / "home", monkeypatch) as server:
        yield server


@pytest.fixture
def broken_http(tmp_path, small_store) -> Iterator[broken_servers.BrokenServer]:
    """A server of the small store's own folder."""
    with broken_servers.broken_http(Path(small_store.where)) as server:
        yield server


@pytest.fixture
def source(small_store) -> Path:
    """The folder of a published store."""
    return Path(small_store.where)


@pytest.fixture
def other_store(tmp_path, small_dataset) -> SignStore:
    """Another store over the same rows."""
    return build_store(tmp_path / "building-other", small_dataset, tmp_path / "N.zarr", seed=1, model="N")


@pytest.fixture
def archive(source, tmp_path):
    """A store's archive, with nothing else in its folder."""
    path = tmp_path / "inbox" / "M.zip"
    path.parent.mkdir()
    exported(source, path)
    return path


@pytest.fixture
def refused_import(monkeypatch, capsys):
    """Import an archive by the command line: refused in one sentence, nothing is left, and the sentence is given."""

    def run(archive, *options):
        before = contents(archive.parent)
        target = archive.parent / "imported" / "M.zarr"
        capsys.readouterr()
        code = call(monkeypatch, "store", "import", str(archive), str(target), *options)
        err = capsys.readouterr().err
        assert code == 2, err
        assert err.startswith("gradshard: ")
        assert err.count("\n") == 1
        assert not target.exists()
        after = contents(archive.parent)
        # What was checked already waits in a folder of its own, for the next attempt.
        assert {name for name in after if not name.startswith("imported/.partial/import-M")} == before.keys()
        assert not list(archive.parent.parent.rglob("*evil*"))
        return err

    return run


def _place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    folder = tmp_path / "shared" / "M.zarr"
    if kind == "path":
        return folder_place(str(folder), folder)
    if kind == "ssh":
        return folder_place(request.getfixturevalue("sshd").url(folder), folder)
    if kind == "hf":
        return hub_place(request.getfixturevalue("hf"), "someone/stores", "M.zarr")
    return bucket_place(request.getfixturevalue(kind), "shared/M.zarr")


@pytest.fixture(params=["path", "s3", "gs", "az", "ssh", "hf"])
def place(request, tmp_path) -> Place:
    """A place that a store can be pushed to."""
    return _place(request.param, request, tmp_path)


@pytest.fixture(params=["path", "s3", "gs", "az", "ssh"])
def file_by_file(request, tmp_path) -> Place:
    """A place at which a file is there as soon as it was sent."""
    return _place(request.param, request, tmp_path)


@pytest.fixture
def says(monkeypatch, capsys):
    """Run the command line; gives the exit code and what it said on standard output and standard error."""

    def run(*arguments):
        capsys.readouterr()
        code = call(monkeypatch, *map(str, arguments))
        return code, *capsys.readouterr()

    return run


@pytest.fixture(params=["nginx", "plain_http"])
def web(request: pytest.FixtureRequest) -> servers.WebServer:
    """A server with ranges, and one without."""
    server: servers.WebServer = request.getfixturevalue(request.param)
    return server
