"""What the tests of hostile stores have in common."""

import pytest

from gradshard.storage.signs import arrays
from gradshard.storage.signs.names import METADATA
from tests.storage.signs.honest import SPEC


@pytest.fixture(scope="session")
def metadata(tmp_path_factory) -> dict[str, bytes]:
    """The metadata of an honest store."""
    store = tmp_path_factory.mktemp("metadata") / "M.zarr"
    arrays.create_arrays(store, SPEC)
    return {name: (store / name).read_bytes() for name in METADATA}
