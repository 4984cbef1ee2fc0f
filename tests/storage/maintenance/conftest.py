"""What the tests of hostile stores have in common."""

import pytest

from gradshard.storage.formats import sign_arrays
from gradshard.storage.formats.store_paths import METADATA
from tests.helpers.honest import SPEC


@pytest.fixture(scope="session")
def metadata(tmp_path_factory) -> dict[str, bytes]:
    """The metadata of an honest store."""
    store = tmp_path_factory.mktemp("metadata") / "M.zarr"
    sign_arrays.create_arrays(store, SPEC)
    return {name: (store / name).read_bytes() for name in METADATA}
