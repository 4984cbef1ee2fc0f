"""The servers as fixtures, and what the tests of sharing have in common."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from gradshard.storage.formats.sign_reader import SignStore
from tests.helpers import servers
from tests.helpers.stores import build_store


@pytest.fixture(autouse=True)
def _fresh_drivers() -> Iterator[None]:
    """Drivers keep connections by address, and ports come back: no test inherits one."""
    yield
    for name in ("http", "s3", "ssh"):
        fsspec.get_filesystem_class(name).clear_instance_cache()


@pytest.fixture
def nginx(tmp_path) -> Iterator[servers.WebServer]:
    with servers.nginx(tmp_path / "nginx") as server:
        yield server


@pytest.fixture
def plain_http(tmp_path) -> Iterator[servers.WebServer]:
    with servers.plain_http(tmp_path / "http") as server:
        yield server


@pytest.fixture
def s3(monkeypatch) -> Iterator[servers.S3]:
    with servers.s3(monkeypatch) as server:
        yield server


@pytest.fixture
def sshd(tmp_path, monkeypatch) -> Iterator[servers.Sshd]:
    with servers.sshd(tmp_path / "home", monkeypatch) as server:
        yield server


@pytest.fixture
def broken_http(tmp_path, small_store) -> Iterator[servers.BrokenServer]:
    """A server of the small store's own folder."""
    with servers.broken_http(Path(small_store.where)) as server:
        yield server


@pytest.fixture
def source(small_store) -> Path:
    """The folder of a published store."""
    return Path(small_store.where)


@pytest.fixture
def other_store(tmp_path, small_dataset) -> SignStore:
    """Another store over the same rows."""
    return build_store(tmp_path / "building-other", small_dataset, tmp_path / "N.zarr", seed=1, model="N")
