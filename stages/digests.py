"""The stage ``digests``: one small file for every stage that attacks models, with the digests of their weights."""

import json
from collections.abc import Iterable

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import params_option
from gradshard.stages.console.progress import echo
from gradshard.stages.project import paths
from gradshard.storage.formats.atomic import remove_outdated, write_text
from gradshard.storage.formats.digests import file_sha256, holds_digests


@click.command()
@params_option
def command(params: Params) -> None:
    """Note the digests of the weights that `analyze`, `blackbox` and `evaluate` read, for every seed.

    Reads the weights that the parameters name; writes digests/analyze-SEED.json, digests/blackbox-SEED.json and
    digests/evaluate-SEED.json. DVC runs one of these stages again only if its own file changed, so adding a seed, or
    changing a model that the stage does not use, does not run it again.
    """
    wanted = {
        f"{stage}-{seed}": _digests(params, named, seed)
        for seed in params.seeds
        for stage, named in (
            ("analyze", params.analysis_of(seed).named),
            ("blackbox", params.blackbox_of(seed).named),
            ("evaluate", params.evaluation.named),
        )
    }
    paths.DIGESTS.mkdir(exist_ok=True)
    remove_outdated(paths.DIGESTS, ".json", keep=[f"{stage}.json" for stage in wanted], ours=holds_digests)
    for stage, digests in wanted.items():
        write_text(paths.DIGESTS / f"{stage}.json", json.dumps(digests, indent=1) + "\n")
    echo(f"{paths.DIGESTS}: the digests of the models of {len(wanted)} stages")


def _digests(params: Params, names: Iterable[str], seed: int) -> dict[str, str]:
    """Return the digests of weights files, by the names that the models have in the run of a seed."""
    return {params.in_run(name, seed): file_sha256(paths.existing_weights(params, name, seed)) for name in names}
