"""The list of the stores in a dataset on the Hugging Face hub, where files change only by commits."""

from collections.abc import Callable

from gradshard.storage.remote.causes import is_conflict
from gradshard.storage.remote.hub import commit_file, hub_folder
from gradshard.storage.remote.location import Location


def folder_above(location: Location) -> tuple[str, str] | None:
    """Return the URL of the parent folder, and the name of this folder in it; none if this is a whole dataset."""
    if not hub_folder(location.url).path:
        return None
    above, _, name = location.url.rpartition("/")
    return above, name


def hub_folders(location: Location) -> list[str]:
    """Name the folders in a folder of a dataset.

    Raises:
        GradshardError: there is no such place, or the connection failed.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFolder

    folder, api = hub_folder(location.url), HfApi()

    def found() -> list[str]:
        entries = api.list_repo_tree(
            folder.repository, folder.path or None, revision=folder.revision, repo_type="dataset"
        )
        return sorted(entry.path.rpartition("/")[2] for entry in entries if isinstance(entry, RepoFolder))

    return location.attempt(found)


def replace_at_hub(location: Location, name: str, change: Callable[[], bytes]) -> bool:
    """Replace a small file by one commit; return false if somebody else committed in between.

    Args:
        location: the file's folder.
        name: the file.
        change: returns the new content; called once the parent commit is known, so it can read the old content.

    Raises:
        GradshardError: the connection failed, or the user may not write there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    folder, api = hub_folder(location.url), HfApi()
    head = location.attempt(lambda: api.repo_info(folder.repository, revision=folder.revision, repo_type="dataset").sha)
    content = change()

    def commit() -> bool:
        try:
            commit_file(location.url, name, content, message=f"List the sign stores in {name}", parent=head)
        except HfHubHTTPError as error:
            if is_conflict(error):
                return False
            raise
        return True

    return location.attempt(commit)
