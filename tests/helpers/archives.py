"""Export and import of stores as archives."""

from gradshard.storage.formats.store_paths import signs_file
from gradshard.storage.remote.archive import export_archive, import_archive
from tests.helpers.transfers import forbidden

VICTIM = signs_file(3)


def exported(store, target):
    seen = []
    export_archive(store, target, advance=seen.append)
    return seen


def imported(archive, target, digest=None):
    seen = []
    import_archive(archive, target, digest=digest, on_wait=forbidden, advance=seen.append)
    return seen
