"""The places of sign stores, and of what is made from them."""

from pathlib import Path

from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.remote import cache as cache_reader
from gradshard.storage.workspace import ROOT

Place = str | Path | SignStore

# The folder of everything that may be deleted at any time.
CACHE = ROOT / "loading"
_REMOTE_BYTES = 10 << 30


def open_place(place: Place, cache: Path) -> SignStore:
    """Open the store at a path or URL, or take an open one.

    Raises:
        GradshardError: there is no store, it is not valid, or the connection failed.
    """
    if isinstance(place, SignStore):
        return place
    return cache_reader.open_place(str(place), cache / "stores", _REMOTE_BYTES)
