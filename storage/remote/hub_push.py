"""Pushing to the Hugging Face hub, where files become visible only by commits, of which there may be 128 per hour.

So files are sent first, which can be interrupted and resumed, and become visible by a few commits of many files each.
The last commit adds the manifest, so nobody sees half a store.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.manifest import FileRecord, Manifest
from gradshard.storage.formats.store_files import Folder
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE
from gradshard.storage.maintenance.signatures import read_signature
from gradshard.storage.maintenance.strangers import is_litter
from gradshard.storage.maintenance.texts import damaged
from gradshard.storage.remote.claims import PENDING, foreign_files, is_claimed, is_published
from gradshard.storage.remote.hub import HubFolder, hub_folder
from gradshard.storage.remote.location import Location

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

Advance = Callable[[int], None]

# The number with which huggingface_hub's own upload of a folder begins.
_FILES_A_COMMIT = 250
# Files that are sent side by side between two reports of progress.
_FILES_AT_ONCE = 16
# The hub puts it into every repository.
_OF_THE_HUB = ".gitattributes"


def push_to_hub(store: Path, manifest: Manifest, location: Location, *, advance: Advance) -> None:
    """Copy a published store to a folder of a dataset on the hub; a missing dataset is created, as a private one.

    Args:
        store: the store's folder.
        manifest: the store's.
        location: a location of ``hf://``.
        advance: called with the number of further bytes that are in place.

    Raises:
        GradshardError: the store lacks a file or is damaged, something else is at the place, or the connection failed.
    """
    from huggingface_hub import HfApi

    push = _Push(store, manifest, location, hub_folder(location.url), HfApi())
    with _silence():
        push.run(advance)


@dataclass(frozen=True)
class _Push:
    store: Path
    manifest: Manifest
    location: Location
    folder: HubFolder
    api: "HfApi"

    def run(self, advance: Advance) -> None:
        self.location.attempt(self._create)
        if self._is_done(advance):
            return
        there = self.location.attempt(self._files)
        claimed = is_claimed(self.location, self.manifest)
        if not claimed and any(name != _OF_THE_HUB and not is_litter(name) for name in there):
            # Another push of the same store may have ended since the first look.
            if self._is_done(advance):
                return
            raise foreign_files(self.location)
        lacking = [name for name in self.manifest.files if not self._is_there(name, there)]
        advance(self.manifest.size - sum(self.manifest.files[name].size for name in lacking))
        for start in range(0, len(lacking), _FILES_A_COMMIT):
            self._send(lacking[start : start + _FILES_A_COMMIT], claim=not claimed and start == 0, advance=advance)
        self.location.attempt(self._publish)

    def _is_done(self, advance: Advance) -> bool:
        """Tell whether the store is there already, and add its signature if that is lacking."""
        if not is_published(self.location, self.manifest):
            return False
        self._send_signature()
        advance(self.manifest.size)
        return True

    def _create(self) -> None:
        if not self.api.repo_exists(self.folder.repository, repo_type="dataset"):
            self.api.create_repo(self.folder.repository, repo_type="dataset", private=True, exist_ok=True)

    def _files(self, revision: str | None = None) -> "dict[str, RepoFile]":
        """Return the files of the folder by name."""
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        folder = self.folder
        try:
            found = self.api.list_repo_tree(
                folder.repository,
                folder.path or None,
                recursive=True,
                revision=revision or folder.revision,
                repo_type="dataset",
            )
            prefix = folder.path_of("")
            return {entry.path.removeprefix(prefix): entry for entry in found if isinstance(entry, RepoFile)}
        except EntryNotFoundError:
            return {}

    def _is_there(self, name: str, there: "dict[str, RepoFile]") -> bool:
        """Tell whether a file is on the hub, by its size and the digest that the hub keeps of it."""
        from huggingface_hub.utils.sha import git_hash

        found, record = there.get(name), self.manifest.files[name]
        if found is None or found.size != record.size:
            return False
        if found.lfs is not None:
            return bool(found.lfs.sha256 == record.sha256)
        self._check(name, record)
        return bool(found.blob_id == git_hash((self.store / name).read_bytes()))

    def _check(self, name: str, record: FileRecord) -> None:
        if not (self.store / name).is_file() or file_sha256(self.store / name) != record.sha256:
            raise damaged(self.store, name, record)

    def _send(self, names: list[str], *, claim: bool, advance: Advance) -> None:
        """Send files, and make them visible by one commit; with ``claim`` it also claims the place for this store."""
        from huggingface_hub import CommitOperationAdd

        added = [CommitOperationAdd(self.folder.path_of(PENDING), self.manifest.digest.encode())] if claim else []
        for start in range(0, len(names), _FILES_AT_ONCE):
            group = names[start : start + _FILES_AT_ONCE]
            added += self.location.attempt(functools.partial(self._upload, group))
            advance(sum(self.manifest.files[name].size for name in group))
        self.location.attempt(
            lambda: self.api.create_commit(
                self.folder.repository,
                added,
                commit_message=f"Add {len(names)} files of the sign store {self.manifest.digest[:12]}",
                repo_type="dataset",
                revision=self.folder.revision,
            )
        )

    def _upload(self, names: list[str]) -> "list[CommitOperationAdd]":
        """Send the content of files that the hub does not have; small files wait for the commit."""
        from huggingface_hub import CommitOperationAdd

        added = []
        for name in names:
            record = self.manifest.files[name]
            self._check(name, record)
            operation = CommitOperationAdd(self.folder.path_of(name), self.store / name)
            operation.upload_info.sha256 = bytes.fromhex(record.sha256)  # so that it is not computed once more
            added.append(operation)
        self.api.preupload_lfs_files(
            self.folder.repository, added, repo_type="dataset", revision=self.folder.revision, free_memory=False
        )
        return added

    def _publish(self) -> None:
        """Add the manifest to the commit whose files were all found whole, and to no other."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        folder = self.folder
        head = self.api.repo_info(folder.repository, revision=folder.revision, repo_type="dataset").sha
        there = self._files(head)
        if MANIFEST in there:  # added by an attempt whose answer was lost
            return
        for name in self.manifest.files:
            if not self._is_there(name, there):
                raise GradshardError(f"{self.location.url}/{name} did not arrive whole: run the same again")
        self.api.create_commit(
            folder.repository,
            [
                CommitOperationAdd(folder.path_of(MANIFEST), (self.store / MANIFEST).read_bytes()),
                CommitOperationDelete(folder.path_of(PENDING)),
                *self._signature(),
            ],
            commit_message=f"Publish the sign store {self.manifest.digest[:12]}",
            repo_type="dataset",
            revision=folder.revision,
            parent_commit=head,
        )

    def _signature(self) -> "list[CommitOperationAdd]":
        from huggingface_hub import CommitOperationAdd

        signature = read_signature(Folder(self.store))
        return [] if signature is None else [CommitOperationAdd(self.folder.path_of(SIGNATURE), signature)]

    def _send_signature(self) -> None:
        """Add the signature of a store that was signed after it was pushed, unless it is there."""
        signature = read_signature(Folder(self.store))
        if signature is not None and read_signature(self.location) != signature:
            self.location.write(SIGNATURE, signature)


@contextmanager
def _silence() -> Iterator[None]:
    """Silence the library's own progress bars, log messages and advice on cards."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    shown, level = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warnings while validating metadata in README.md")
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            enable_progress_bars()
