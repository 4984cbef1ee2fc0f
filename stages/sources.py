"""The stage ``sources``: per robust model one small file, the digests of the sign stores that it is trained on."""

import json

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.support import paths
from gradshard.stages.support.options import params_option
from gradshard.stages.support.progress import say
from gradshard.storage.formats.atomic import remove_strays, write_text
from gradshard.storage.formats.manifest import read_manifest


@click.command()
@params_option
def command(params: Params) -> None:
    """Note, for every robust model, the digests of the sign stores that it is trained on.

    Reads the manifests of the stores signs/SOURCE.zarr that the parameters robust.MODEL.sources name; writes
    sources/MODEL.json. DVC trains a model again only if its file changed: of all stores, its own count alone.
    """
    used = {source for robust in params.robust.values() for source in robust.sources}
    digests = {source: read_manifest(paths.store(source)).content for source in sorted(used)}
    paths.SOURCES.mkdir(exist_ok=True)
    remove_strays(paths.SOURCES, keep=[paths.sources(model).name for model in params.robust])
    for model, robust in params.robust.items():
        write_text(paths.sources(model), _json({source: digests[source] for source in robust.sources}))
    say(f"{paths.SOURCES}: the digests of {len(used)} sign stores, for {len(params.robust)} robust models")


def _json(digests: dict[str, str]) -> str:
    return json.dumps(digests, indent=1) + "\n"
