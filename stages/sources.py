"""The stage ``sources``: per robust model and seed one small file, the digests of the stores that it is trained on."""

import json

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.support import paths
from gradshard.stages.support.options import params_option
from gradshard.stages.support.progress import echo
from gradshard.storage.formats.atomic import remove_strays, write_text
from gradshard.storage.formats.manifest import read_manifest


@click.command()
@params_option
def command(params: Params) -> None:
    """Note, for every robust model and seed, the digests of the sign stores that it is trained on.

    Reads the manifests of the stores that the parameters robust.MODEL.sources name, or of those that stand for them;
    writes sources/MODEL-SEED.json. DVC trains a model again only if its file changed: of all stores, its own count
    alone.
    """
    wanted = {
        run: {source: params.in_run(source, seed) for source in params.robust[model].sources}
        for run, (model, seed) in params.runs.items()
    }
    used = {store for sources in wanted.values() for store in sources.values()}
    digests = {store: read_manifest(paths.store(store)).content for store in sorted(used)}
    paths.SOURCES.mkdir(exist_ok=True)
    remove_strays(paths.SOURCES, keep=[paths.sources(run).name for run in wanted])
    for run, sources in wanted.items():
        found = {source: digests[store] for source, store in sources.items()}
        write_text(paths.sources(run), json.dumps(found, indent=1) + "\n")
    echo(f"{paths.SOURCES}: the digests of {len(used)} sign stores, for {len(wanted)} runs of robust models")
