"""``store push`` and ``store pull``: transfer of a store to and from other machines."""

from pathlib import Path

import click

from gradshard.stages.console.output import digest_option, json_option, passed_over, signer_option, tell
from gradshard.stages.console.places import PLACE, PathType
from gradshard.stages.console.progress import echo, echo_waiting, progress
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import Manifest, read_manifest
from gradshard.storage.maintenance.signatures import vouched_by
from gradshard.storage.maintenance.strangers import strangers
from gradshard.storage.remote.index import address, has_index, register
from gradshard.storage.remote.index import pick as picked
from gradshard.storage.remote.location import manifest_at, shown
from gradshard.storage.remote.transfer import check_long_enough, pull, push


@click.command()
@click.argument("store", type=PathType(path_type=Path))
@click.argument("place", type=PLACE)
@json_option
def push_command(store: Path, place: str, as_json: bool) -> None:
    """Copy STORE to PLACE, a path or URL.

    PLACE (a path, s3://, gs://, az://, hf:// or ssh://) becomes the store's folder. If the command is interrupted, the
    same command continues. The manifest is copied last, so nobody sees half a store. A different store at PLACE is
    never overwritten; if the same store is there, what it lacks is added. Afterwards the store is added to
    `stores.json`, the list of stores beside it.
    """
    published = read_manifest(store)
    for line in passed_over(*strangers(store, published)):
        echo(f"{store}: {line}")
    with progress(f"push {store}", published.size, "bytes") as advance:
        manifest = push(store, place, advance=advance)
    try:
        register(place, manifest)
    except (GradshardError, OSError) as error:
        echo(f"{place} is there, but not in the list of the stores beside it: {error}")
    result = {"place": place, "digest": manifest.digest, "size": manifest.size}
    tell(result, [f"{place}: store {manifest.digest}"], as_json=as_json)


@click.command()
@click.argument("place", type=PLACE)
@click.argument("store", type=PathType(path_type=Path))
@click.option("--pick", help="The name, or the beginning of the digest, of one of the stores at PLACE.")
@digest_option
@signer_option
@json_option
def pull_command(
    place: str, store: Path, pick: str | None, digest: str | None, signer: Path | None, as_json: bool
) -> None:
    """Fetch the store at PLACE, a path or URL, into the folder STORE.

    PLACE may be a path or a URL (https://, s3://, ssh://, ...). Every file is checked against the manifest when it
    arrives. If the command is interrupted, the same command continues; STORE appears once it is complete. If the same
    store is there already, what is missing or damaged in it is fetched again. `--digest` checks that it is the store
    that its owner named, `--signer` who signed it. With `--pick`, PLACE is a folder or URL that contains stores, as for
    `store list`.
    """
    if digest is not None:
        check_long_enough(digest)
    if pick is not None:
        entry = picked(place, pick)
        place = address(place, entry)
        if digest is not None and not entry.digest.startswith(digest.lower()):
            raise GradshardError(
                f"{shown(place)} is listed as the store {entry.digest[:12]}, not {digest}: pick another"
            )
        digest = entry.digest
    with vouched_by(signer):
        size = _manifest(place).size
    with progress(f"pull {shown(place)}", size, "bytes") as advance:
        manifest = pull(place, store, digest=digest, on_wait=echo_waiting(store), advance=advance, signer=signer)
    result = {"store": str(store), "digest": manifest.digest, "size": manifest.size}
    tell(result, [f"{store}: {manifest.dataset.rows} rows, store {manifest.digest}"], as_json=as_json)


def _manifest(place: str) -> Manifest:
    """Return the manifest of the store at a place.

    Raises:
        GradshardError: there is none, it is not valid, or the connection failed; it may be a list of stores.
    """
    try:
        return manifest_at(place)
    except GradshardError as error:
        if not isinstance(error.__cause__, FileNotFoundError) or not _lists_stores(place):
            raise
        raise GradshardError(
            f"{shown(place)} is no store but a list of stores: name one by --pick, as `gradshard store list` shows them"
        ) from error


def _lists_stores(place: str) -> bool:
    try:
        return has_index(place)
    except GradshardError:
        # What the manifest's own request met is told instead.
        return False
