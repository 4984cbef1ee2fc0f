"""``store export`` and ``store import``: a store as one file."""

from pathlib import Path

import click

from gradshard.stages.console.output import bytes_text, digest_option, json_option, passed_over, signer_option, tell
from gradshard.stages.console.places import PathType
from gradshard.stages.console.progress import echo, echo_waiting, progress
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.maintenance.strangers import strangers
from gradshard.storage.remote.archive import export_archive, import_archive


@click.command()
@click.argument("store", type=PathType(path_type=Path))
@click.argument("archive", type=PathType(path_type=Path))
@json_option
def export_command(store: Path, archive: Path, as_json: bool) -> None:
    """Write STORE to one file, ARCHIVE.

    ARCHIVE is an uncompressed zip; equal stores give equal archives. Every file is checked against the manifest while
    it is copied. zarr opens the archive as it is (`zarr.storage.ZipStore`).
    """
    published = read_manifest(store)
    for line in passed_over(*strangers(store, published)):
        echo(f"{store}: {line}")
    with progress(f"export {store}", published.size, "bytes") as advance:
        manifest = export_archive(store, archive, advance=advance)
    size = archive.stat().st_size
    result = {"archive": str(archive), "digest": manifest.digest, "size": size}
    tell(result, [f"{archive}: {bytes_text(size)}, store {manifest.digest}"], as_json=as_json)


@click.command()
@click.argument("archive", type=PathType(path_type=Path))
@click.argument("store", type=PathType(path_type=Path))
@digest_option
@signer_option
@json_option
def import_command(archive: Path, store: Path, digest: str | None, signer: Path | None, as_json: bool) -> None:
    """Unpack ARCHIVE, which `store export` made, into the folder STORE.

    Every file is checked against the manifest; STORE appears once it is complete. An archive that contains any other
    file is refused as a whole.
    """
    size = archive.stat().st_size
    with progress(f"import {archive}", size, "bytes") as advance:
        manifest = import_archive(
            archive, store, digest=digest, on_wait=echo_waiting(store), advance=advance, signer=signer
        )
        # The rest is what the archive itself takes, such as the names of the files.
        advance(size - manifest.size)
    result = {"store": str(store), "digest": manifest.digest}
    tell(result, [f"{store}: {manifest.dataset.rows} rows, store {manifest.digest}"], as_json=as_json)
