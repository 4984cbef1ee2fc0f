"""``store sign``: the signature of somebody who vouches for a store."""

from pathlib import Path

import click

from gradshard.stages.console.output import json_option, tell
from gradshard.stages.console.places import PLACE, PathType
from gradshard.stages.console.progress import echo
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_bytes
from gradshard.storage.formats.manifest import SIZE_LIMIT
from gradshard.storage.formats.store_files import Folder
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE
from gradshard.storage.maintenance.signatures import claimed_signer
from gradshard.storage.maintenance.vouching import SigningKey, sign
from gradshard.storage.remote.index import register
from gradshard.storage.remote.location import Location, files_at, shown


@click.command()
@click.argument("store", type=PLACE)
@click.option(
    "--key", required=True, type=PathType(path_type=Path), help="Your private key: an elliptic-curve key (PEM)."
)
@click.option("--certificate", type=PathType(path_type=Path), help="The key's certificate (PEM), if it has one.")
@click.option(
    "--chain",
    multiple=True,
    type=PathType(path_type=Path),
    help="Certificates (PEM) between --certificate and the authority that others trust; may be given several times.",
)
@click.option("--password", envvar="GRADSHARD_KEY_PASSWORD", hidden=True, help="The password of an encrypted key.")
@json_option
def command(
    store: str, key: Path, certificate: Path | None, chain: tuple[Path, ...], password: str | None, as_json: bool
) -> None:
    """Sign the store at a path or URL.

    This adds the file `store.sig` to the store, or replaces it. The signature covers the digest of every file, as the
    manifest states it. No shard is read, so check the store with `store verify` before you vouch for it. The format is
    that of OpenSSF's model signing, whose own command can check the signature too. The password of an encrypted key is
    taken from the environment variable GRADSHARD_KEY_PASSWORD.
    """
    if chain and certificate is None:
        raise GradshardError("--chain leads from a --certificate to an authority: give that too")
    files, manifest = files_at(store)
    content = files.read(MANIFEST, SIZE_LIMIT)
    signature = sign(manifest, content, SigningKey(key, password, certificate, chain), where=shown(store))
    if isinstance(files, Folder):
        write_bytes(files.path / SIGNATURE, signature)
    elif isinstance(files, Location):
        if files.protocol in ("http", "https"):
            raise GradshardError(f"{shown(store)}: nothing can be written over HTTP: sign it in the server's folder")
        files.write(SIGNATURE, signature)
    try:
        register(store, manifest, only_if_indexed=True)
    except (GradshardError, OSError) as error:
        echo(f"{store} is signed, but the list of the stores beside it does not say so: {error}")
    signer = claimed_signer(signature)
    result = {"store": store, "digest": manifest.digest, "signer": signer}
    tell(result, [f"{store}: signed by {signer}, store {manifest.digest}"], as_json=as_json)
