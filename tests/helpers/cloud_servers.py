"""Emulators of Google Cloud Storage and Azure Blob Storage, each a process that the tests of a session share."""

import itertools
import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.servers import free_port, required, running

_numbers = itertools.count()


@dataclass
class Gcs:
    """A server of Google Cloud Storage with one empty bucket, which the environment names to the driver."""

    port: int
    bucket: str
    patch: pytest.MonkeyPatch

    @property
    def url(self) -> str:
        return f"gs://{self.bucket}"

    def use(self, port: int) -> None:
        """Send the driver to another port."""
        self.patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")

    def contents(self, place: str) -> dict[str, bytes]:
        prefix = place.removeprefix(f"{self.url}/") + "/"
        listing = json.loads(self._ask(f"storage/v1/b/{self.bucket}/o?{urllib.parse.urlencode({'prefix': prefix})}"))
        names = [entry["name"] for entry in listing.get("items", [])]
        return {name.removeprefix(prefix): self._ask(f"{self.bucket}/{name}") for name in names}

    def put(self, place: str, content: bytes) -> None:
        query = urllib.parse.urlencode({"uploadType": "media", "name": place.removeprefix(f"{self.url}/")})
        kind = {"Content-Type": "application/octet-stream"}
        self._ask(f"upload/storage/v1/b/{self.bucket}/o?{query}", data=content, headers=kind)

    def remove(self, place: str) -> None:
        name = urllib.parse.quote(place.removeprefix(f"{self.url}/"), safe="")
        self._ask(f"storage/v1/b/{self.bucket}/o/{name}", method="DELETE")

    def _ask(self, path: str, **how: Any) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", **how)) as answer:
            return answer.read()


@contextmanager
def gcs_server(work: Path) -> Iterator[int]:
    """Start the emulator; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running([*command, "--in-memory"], port, work / "output.log"):
        yield port


def gcs(port: int, patch: pytest.MonkeyPatch) -> Gcs:
    """Make an empty bucket, and let the driver ask the emulator without a login."""
    import fsspec.config

    server = Gcs(port, f"stores-{next(_numbers)}", patch)
    server._ask(
        "storage/v1/b",
        data=json.dumps({"name": server.bucket}).encode(),
        headers={"Content-Type": "application/json"},
    )
    # Otherwise the driver asks by gRPC first what kind of bucket it is, and no emulator answers that.
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    patch.setenv("FSSPEC_GCS_TOKEN", "anon")
    patch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})  # what fsspec makes of that as it is imported
    server.use(port)
    return server


# The account of every Azurite, published in its documentation.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Azure:
    """A server of Azure Blob Storage with one empty container, which the environment names to the driver."""

    port: int
    container: str
    patch: pytest.MonkeyPatch
    client: Any

    @property
    def url(self) -> str:
        return f"az://{self.container}"

    def use(self, port: int) -> None:
        """Send the driver to another port."""
        self.patch.setenv("AZURE_STORAGE_CONNECTION_STRING", _connection(port))

    def contents(self, place: str) -> dict[str, bytes]:
        prefix = place.removeprefix(f"{self.url}/") + "/"
        names = list(self.client.list_blob_names(name_starts_with=prefix))
        return {name.removeprefix(prefix): self.client.download_blob(name).readall() for name in names}

    def put(self, place: str, content: bytes) -> None:
        self.client.upload_blob(place.removeprefix(f"{self.url}/"), content, overwrite=True)

    def remove(self, place: str) -> None:
        self.client.delete_blob(place.removeprefix(f"{self.url}/"))


def _connection(port: int) -> str:
    address = f"BlobEndpoint=http://127.0.0.1:{port}/{_ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};{address};"


@contextmanager
def azure_server(work: Path) -> Iterator[int]:
    """Start Azurite, which `npm install azurite` brings; gives its port."""
    program, port = required("azurite-blob", insist="GRADSHARD_REQUIRE_AZURITE"), free_port()
    # The client may be newer than the versions of the interface that it knows by name.
    options = ["--blobPort", str(port), "--location", str(work), "--skipApiVersionCheck", "--disableTelemetry"]
    with running([program, *options, "--silent"], port, work / "output.log"):
        yield port


def azure(port: int, patch: pytest.MonkeyPatch) -> Azure:
    """Make an empty container, and let the driver ask Azurite."""
    from azure.storage.blob import ContainerClient

    name = f"stores-{next(_numbers)}"
    client = ContainerClient.from_connection_string(_connection(port), name)
    client.create_container()
    server = Azure(port, name, patch, client)
    server.use(port)
    return server
