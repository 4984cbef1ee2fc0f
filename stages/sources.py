"""The stage ``sources``: one small file per robust model and seed, with the digests of its stores and weights."""

import json
from pathlib import Path

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import params_option
from gradshard.stages.console.progress import echo
from gradshard.stages.project import paths
from gradshard.storage.formats.atomic import remove_outdated, write_text
from gradshard.storage.formats.digests import file_sha256, holds_digests
from gradshard.storage.formats.manifest import read_manifest


@click.command()
@params_option
def command(params: Params) -> None:
    """Note the digests of the stores and initial weights that each robust model is trained from, for every seed.

    Reads the manifests of the stores that robust.MODEL.sources names, and the weights of the static model that
    robust.MODEL.init_from names, if any; where stand_ins replaces one of them for a seed, the replacement is read.
    Writes sources/MODEL-SEED.json. DVC trains a model again only if its own file changed, so other stores and static
    models do not matter.
    """
    wanted = {run: _wanted(params, model, seed) for run, (model, seed) in params.runs.items()}
    used = {path for named in wanted.values() for path in named.values()}
    digests = {path: _digest(path) for path in sorted(used)}
    paths.SOURCES.mkdir(exist_ok=True)
    remove_outdated(paths.SOURCES, ".json", keep=[paths.sources(run).name for run in wanted], ours=holds_digests)
    for run, named in wanted.items():
        found = {name: digests[path] for name, path in named.items()}
        write_text(paths.sources(run), json.dumps(found, indent=1) + "\n")
    echo(f"{paths.SOURCES}: the digests of {len(used)} stores and weights, for {len(wanted)} runs of robust models")


def _wanted(params: Params, model: str, seed: int) -> dict[str, Path]:
    """Return the stores and the weights that a training run reads, by their names in the file."""
    robust = params.robust[model]
    found = {source: paths.store(params.in_run(source, seed)) for source in robust.sources}
    if robust.init_from is not None:
        # No store can have this name: spaces and colons are refused.
        found[f"init_from: {robust.init_from}"] = paths.existing_weights(params, robust.init_from, seed)
    return found


def _digest(path: Path) -> str:
    return file_sha256(path) if path.suffix == ".safetensors" else read_manifest(path).content
