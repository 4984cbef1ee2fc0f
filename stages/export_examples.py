"""The command ``export-examples``: the adversarial test images of one cell of the error matrix, in one file."""

import re
from pathlib import Path

import click

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.types import Gradient
from gradshard.stages.console.options import ClusterConfig, cluster_options, gradient_option, params_option
from gradshard.stages.console.places import PathType
from gradshard.stages.console.seeds import chosen_seed, seed_option

_CELL = re.compile(r"[^/]+/[^/]+/[^/]+")


def _cell(context: click.Context, argument: click.Parameter, text: str) -> tuple[str, str, str]:
    del context, argument
    if not _CELL.fullmatch(text):
        raise click.UsageError(f"CELL must be TARGET/SOURCE/ATTACK, such as A_adv/B/fgsm, but is {text}")
    target, source, attack = text.split("/")
    return target, source, attack


def _tensor_file(context: click.Context, argument: click.Parameter, path: Path) -> Path:
    del context, argument
    if path.suffix != ".pt":
        raise click.UsageError(f"FILE must end in .pt (what is known of it goes into a .json beside it), but is {path}")
    return path


@click.command()
@click.argument("cell", callback=_cell)
@click.argument("file", type=PathType(dir_okay=False, path_type=Path), callback=_tensor_file)
@gradient_option
@seed_option
@cluster_options
@params_option
def command(
    cell: tuple[str, str, str],
    file: Path,
    gradient: Gradient | None,
    given_seed: int | None,
    cluster: ClusterConfig,
    params: Params,
) -> None:
    """Write the adversarial test images of one cell of the error matrix as one tensor.

    CELL is TARGET/SOURCE/ATTACK, a cell that `evaluate` measured. FILE, which must end in .pt, gets a float32 tensor
    (N, C, H, W) in [0, 1], in the order of the test set, as RobustBench's form for new evaluations requires; no pixel
    differs from the original image by more than eps. The examples are crafted again, and must fool the target as often
    as evaluation/SEED/matrix.parquet says. The error rate, the attack and all digests are written to a .json file
    beside FILE. If the command is killed, the same command continues where it stopped.
    """
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is reported without it.
    from gradshard.stages.jobs.exported_tensor import export

    export(params, seed, cell, file, gradient or params.evaluation.gradients[0], cluster)
