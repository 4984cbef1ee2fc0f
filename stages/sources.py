"""The stage ``sources``: the digests of the sign stores that a robust model is trained on, in one small file."""

import json

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.support import paths
from gradshard.stages.support.options import params_option
from gradshard.stages.support.progress import say
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.formats.manifest import read_manifest


@click.command()
@click.argument("model")
@params_option
def command(params: Params, model: str) -> None:
    """Note the digests of the sign stores that the robust model MODEL is trained on.

    Reads the manifest of signs/SOURCE.zarr for every source; writes sources/MODEL.json. DVC trains the model again only
    if this file changed: of all stores, its own count alone.
    """
    paths.one_of(model, list(params.robust), "a robust model")
    digests = {source: read_manifest(paths.store(source)).content for source in params.robust[model].sources}
    target = paths.sources(model)
    write_text(target, json.dumps(digests, indent=1) + "\n")
    say(f"{target}: {_count(len(digests))}")


def _count(stores: int) -> str:
    return {0: "no store", 1: "one store"}.get(stores, f"{stores} stores")
