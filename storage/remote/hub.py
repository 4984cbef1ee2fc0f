"""Datasets of the Hugging Face hub: their addresses, and reading them over HTTP.

The library's own driver requests the listing of every file's folder, and the hub limits requests. At the addresses of
files (`resolve`) one request gives one file, as from any web server.
"""

from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs

from gradshard.storage.remote.web import web_options


@dataclass(frozen=True)
class HubFolder:
    """A folder of a dataset on the hub, or all of it if ``path`` is empty; ``revision`` is a branch, tag or commit."""

    repository: str
    revision: str
    path: str

    def path_of(self, name: str) -> str:
        """Return the path in the repository of a file of this folder."""
        return f"{self.path}/{name}" if self.path else name


def hub_folder(url: str) -> HubFolder:
    """Return the folder that ``hf://datasets/OWNER/NAME[@REVISION][/PATH]`` names.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: it is no such address.
    """
    from huggingface_hub import constants, parse_hf_uri

    found = parse_hf_uri(url.rstrip("/"))
    if found.type != "dataset":
        raise ValueError("on the Hugging Face hub stores are kept in datasets: hf://datasets/OWNER/NAME/PATH")
    return HubFolder(found.id, found.revision or constants.DEFAULT_REVISION, found.path_in_repo)


def hub_file_system(url: str) -> tuple[Any, str]:
    """Return a driver for a folder of the hub, with the user's token if there is one, and the folder's address.

    Raises:
        ImportError: huggingface_hub or aiohttp is not installed.
        ValueError: it is no address of a dataset.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    folder = hub_folder(url)
    # The hub redirects to other hosts, to which the driver does not send the token.
    address = hf_hub_url(folder.repository, folder.path, repo_type="dataset", revision=folder.revision)
    fs, root = url_to_fs(address, **web_options(), headers=build_hf_headers())
    return fs, root


def commit_file(url: str, name: str, content: bytes, *, message: str, parent: str | None = None) -> None:
    """Write a small file to a folder of the hub by a commit of its own.

    Args:
        url: the folder's.
        name: the file.
        content: its bytes.
        message: what the commit says.
        parent: the commit that it must follow; any, by default.

    Raises:
        HfHubHTTPError: the hub refused it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = hub_folder(url)
    HfApi().create_commit(
        folder.repository,
        [CommitOperationAdd(folder.path_of(name), content)],
        commit_message=message,
        repo_type="dataset",
        revision=folder.revision,
        parent_commit=parent,
    )
