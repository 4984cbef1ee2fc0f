"""Cloud storage on this machine: an S3 server, and emulators of Google Cloud Storage and Azure Blob Storage.

Each emulator is a process that the tests of a session share; the S3 server is a thread of one test.
"""

import functools
import itertools
import json
import os
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
    """A server of Google Cloud Storage with one empty bucket; the driver finds it by environment variables."""

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
    """Run the emulator, and yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running([*command, "--in-memory"], port, work / "output.log"):
        yield port


def gcs(port: int, patch: pytest.MonkeyPatch) -> Gcs:
    """Make an empty bucket, and have the driver use the emulator without a login."""
    import fsspec.config

    server = Gcs(port, f"stores-{next(_numbers)}", patch)
    server._ask(
        "storage/v1/b",
        data=json.dumps({"name": server.bucket}).encode(),
        headers={"Content-Type": "application/json"},
    )
    # Otherwise the driver first asks for the kind of bucket by gRPC, which no emulator answers.
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    patch.setenv("FSSPEC_GCS_TOKEN", "anon")
    patch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})  # fsspec reads that variable only when it is imported
    server.use(port)
    return server


# The account of every Azurite, published in its documentation.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Azure:
    """A server of Azure Blob Storage with one empty container; the driver finds it by environment variables."""

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
    """Run Azurite, which `npm install azurite` installs, and yield its port."""
    program, port = required("azurite-blob", insist="GRADSHARD_REQUIRE_AZURITE"), free_port()
    # The client may use a newer version of the API than Azurite knows.
    options = ["--blobPort", str(port), "--location", str(work), "--skipApiVersionCheck", "--disableTelemetry"]
    with running([program, *options, "--silent"], port, work / "output.log"):
        yield port


def azure(port: int, patch: pytest.MonkeyPatch) -> Azure:
    """Make an empty container, and have the driver use Azurite."""
    from azure.storage.blob import ContainerClient

    name = f"stores-{next(_numbers)}"
    client = ContainerClient.from_connection_string(_connection(port), name)
    client.create_container()
    server = Azure(port, name, patch, client)
    server.use(port)
    return server


@dataclass
class S3:
    """An S3 server with one empty bucket; drivers find it by environment variables."""

    url: str
    port: int
    client: object
    patch: pytest.MonkeyPatch

    def use(self, port: int) -> None:
        """Send the driver to another port."""
        self.patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")

    def contents(self, place: str) -> dict[str, bytes]:
        """Return the objects under a URL, by their names below it."""
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        found = self.client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", [])
        read = functools.partial(self.client.get_object, Bucket=bucket)
        return {entry["Key"].removeprefix(f"{prefix}/"): read(Key=entry["Key"])["Body"].read() for entry in found}

    def put(self, place: str, content: bytes) -> None:
        bucket, _, key = place.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def remove(self, place: str) -> None:
        bucket, _, key = place.removeprefix("s3://").partition("/")
        self.client.delete_object(Bucket=bucket, Key=key)


@contextmanager
def s3(patch: pytest.MonkeyPatch) -> Iterator[S3]:
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        patch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client("s3", endpoint_url=endpoint)
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        client.create_bucket(Bucket="stores")
        found = S3("s3://stores", port, client, patch)
        found.use(port)
        yield found
    finally:
        server.stop()
