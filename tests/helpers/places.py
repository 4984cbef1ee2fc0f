"""Places that stores are pushed to in the tests, the same for every driver."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.hub_server import Hub
from tests.helpers.transfers import contents


@dataclass
class Place:
    """Place that a store can be pushed to, with functions that see and change its files without the drivers."""

    url: str
    contents: Callable[[], dict[str, bytes]]
    put: Callable[[str, bytes], object]
    remove: Callable[[str], object]


def folder_place(url: str, folder: Path) -> Place:
    """Return a folder of this machine, addressed by a path or URL."""

    def put(name: str, content: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return Place(url, lambda: contents(folder), put, lambda name: (folder / name).unlink())


def bucket_place(server, path: str) -> Place:
    """Return a folder of a bucket of an S3, Google or Azure server."""
    url = f"{server.url}/{path}"
    return Place(
        url,
        lambda: server.contents(url),
        lambda name, content: server.put(f"{url}/{name}", content),
        lambda name: server.remove(f"{url}/{name}"),
    )


def hub_place(hub: Hub, name: str, folder: str) -> Place:
    """Return a folder of a dataset of the hub."""

    def change(edit: Callable[[dict[str, bytes]], object]) -> None:
        repository = hub.datasets.get(name) or hub.create(name)
        files = dict(repository.files)
        edit(files)
        repository.commit(files)

    prefix = f"{folder}/" if folder else ""
    return Place(
        f"hf://datasets/{name}/{folder}".rstrip("/"),
        lambda: hub.contents(name, folder),
        lambda file, content: change(lambda files: files.update({prefix + file: content})),
        lambda file: change(lambda files: files.pop(prefix + file)),
    )


def serve(source: Path, server) -> str:
    """Put a store on a web server, and return its address."""
    shutil.copytree(source, server.folder / "M.zarr")
    return f"{server.url}/M.zarr"
