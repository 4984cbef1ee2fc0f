"""The store that a place belongs to: the one published there, or the one that is being pushed there."""

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import Manifest
from gradshard.storage.formats.store_paths import MANIFEST
from gradshard.storage.remote.location import Location, remote_manifest

# The file, beside those of an unfinished push, with the digest of the store that is being pushed.
PENDING = "manifest.json.pending"


def is_published(location: Location, manifest: Manifest) -> bool:
    """Tell whether the same store is at the location already.

    Raises:
        GradshardError: another store is there.
    """
    if location.size(MANIFEST) is None:
        return False
    found = remote_manifest(location)
    if found.digest != manifest.digest:
        raise GradshardError(
            f"{location.url} holds another store, {found.digest[:12]} and not {manifest.digest[:12]}: a published "
            "store is never overwritten; choose another place"
        )
    return True


def is_claimed(location: Location, manifest: Manifest) -> bool:
    """Tell whether the location is marked as the place that this store is being pushed to.

    Raises:
        GradshardError: it is marked for another one.
    """
    try:
        pending = location.read(PENDING, 100).decode(errors="replace")
    except FileNotFoundError:
        return False
    if pending != manifest.digest:
        raise GradshardError(
            f"{location.url} holds the unfinished push of another store, {pending[:12]}: finish that one, empty the "
            "place or choose another"
        )
    return True


def foreign_files(location: Location) -> GradshardError:
    """Return the error for a place that holds files but no store."""
    return GradshardError(f"{location.url} is not empty and holds no store: choose another place, or empty it")
