"""The command ``examine``: attacks and flags of anybody's model on one page, without pipeline or training."""

from fractions import Fraction
from pathlib import Path

import click

from gradshard.pipeline.types import DeviceName, Gradient, Output
from gradshard.stages.console.options import ClusterConfig, cluster_options
from gradshard.stages.console.places import PathType


def _epsilon(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    del context, option
    if text is None:
        return None
    try:
        value = float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError) as error:
        raise click.UsageError(f"--eps must be a number such as 0.3 or 8/255, but is {text}") from error
    if not 0 < value <= 1:
        raise click.UsageError(f"--eps must be above 0 and at most 1 (pixels lie in [0, 1]), but is {text}")
    return value


@click.command()
@click.argument("model")
@click.option(
    "--weights",
    help="MODEL's checkpoint, or `pretrained` for timm:NAME; default: the weights that your own factory sets.",
)
@click.option(
    "--dataset", required=True, type=PathType(path_type=Path), help="A prepared dataset (.zarr), or an .npz archive."
)
@click.option(
    "--against",
    "against",
    multiple=True,
    metavar="SOURCE",
    help="A source, whose examples are transferred to MODEL: NAME=ARCHITECTURE:WEIGHTS, or a weights file of "
    "gradshard; may be given several times.",
)
@click.option("--eps", callback=_epsilon, help="How far a pixel may move; default: 0.3, or 8/255 for colour images.")
@click.option(
    "--gradient",
    type=click.Choice(["exact", "cross_entropy"]),
    default="exact",
    show_default=True,
    help="How the gradient is computed: exactly, or from the fp32 cross-entropy, where it rounds to 0 on confident "
    "examples.",
)
@click.option("--quick", is_flag=True, help="Use 1,000 images and only the four quickest attacks.")
@click.option(
    "--attack",
    "others",
    multiple=True,
    metavar="NAME",
    help="A further attack by the model's own gradient: torchattacks:NAME, foolbox:NAME, art:NAME or your own "
    "package.module:function; may be given several times.",
)
@click.option(
    "--images",
    "wanted",
    type=click.IntRange(min=1),
    help="The number of test images, drawn at random; default: all, or 1,000 with --quick.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1), help="The seed of everything random."
)
@click.option(
    "--output",
    type=click.Choice(["logits", "probabilities"]),
    default="logits",
    show_default=True,
    help="What the model returns; if probabilities, their logarithm is taken.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="The device to compute on.",
)
@click.option(
    "--into",
    type=PathType(file_okay=False, path_type=Path),
    default=Path("examination"),
    show_default=True,
    help="The folder to write to.",
)
@cluster_options
def command(
    model: str,
    weights: str | None,
    dataset: Path,
    against: tuple[str, ...],
    eps: float | None,
    gradient: Gradient,
    quick: bool,
    others: tuple[str, ...],
    wanted: int | None,
    seed: int,
    output: Output,
    device: DeviceName,
    into: Path,
    cluster: ClusterConfig,
) -> None:
    """Attack a model, whoever trained it, and tell whether its gradient can be trusted.

    MODEL is an architecture (A to D, timm:NAME, or your own package.module:factory) or a weights file that gradshard
    wrote. The command needs no params.yaml and trains nothing. It writes index.html and examination.json: the errors on
    clean and on randomly perturbed images, under attacks by the model's own gradient, under attacks transferred from
    the sources, and under AutoAttack if it is installed; the worst case over all attacks; the error over epsilon; and
    the flags that point to a masked gradient. The exit code is 1 if a flag is raised. If the command is killed, the
    same command continues where it stopped.
    """
    # Imported here: torch takes seconds.
    from gradshard.stages.jobs.examination import examine, named_model, named_sources

    masked = examine(
        named_model(model, weights, output),
        named_sources(against),
        dataset,
        into,
        epsilon=eps,
        gradient=gradient,
        quick=quick,
        others=others,
        wanted=wanted,
        seed=seed,
        device=device,
        cluster=cluster,
    )
    if masked:
        click.get_current_context().exit(1)
