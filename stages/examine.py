"""The command ``examine``: attacks and flags of anybody's model, in one page; no pipeline and no training."""

from fractions import Fraction
from pathlib import Path

import click

from gradshard.pipeline.types import DeviceName, Gradient, Output
from gradshard.stages.support.options import ClusterConfig, cluster_options
from gradshard.stages.support.places import PathType


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
@click.option("--weights", help="Its checkpoint; or `pretrained` for timm:NAME. Without: as your own factory makes it.")
@click.option("--dataset", required=True, type=PathType(path_type=Path), help="A prepared .zarr, or an .npz archive.")
@click.option(
    "--against",
    "against",
    multiple=True,
    metavar="SOURCE",
    help="A model whose examples are transferred, NAME=ARCHITECTURE:WEIGHTS or a weights file of gradshard; may be "
    "given several times.",
)
@click.option("--eps", callback=_epsilon, help="How far a pixel may move; default: 0.3, of colour images 8/255.")
@click.option(
    "--gradient",
    type=click.Choice(["exact", "cross_entropy"]),
    default="exact",
    show_default=True,
    help="Of which loss; cross-entropy rounds to 0 on confident examples.",
)
@click.option("--quick", is_flag=True, help="1,000 images and the four quickest attacks.")
@click.option(
    "--attack",
    "others",
    multiple=True,
    metavar="NAME",
    help="Another attack by the model's own gradient, torchattacks:NAME, foolbox:NAME, art:NAME or your own "
    "package.module:function; may be given several times.",
)
@click.option("--images", "wanted", type=click.IntRange(min=1), help="So many test images, drawn at random.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of everything random.")
@click.option(
    "--output",
    type=click.Choice(["logits", "probabilities"]),
    default="logits",
    show_default=True,
    help="What the model gives; of probabilities the logarithm is taken.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option(
    "--into",
    type=PathType(file_okay=False, path_type=Path),
    default=Path("examination"),
    show_default=True,
    help="The folder to write.",
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
    """Attack a model that anybody trained, and tell whether its gradient can be trusted.

    MODEL is an architecture: A to D, timm:NAME, or your own package.module:factory; or a weights file that gradshard
    wrote. Needs no params.yaml and trains nothing. Writes index.html and examination.json: the error on clean and
    randomly perturbed images, under every attack by the model's own gradient and transferred from the sources,
    AutoAttack where it is installed, the worst case by example, the error over epsilon, and the flags of a masked
    gradient. Exit code 1 if a flag is raised. Killed and started again, the same command goes on where it was.
    """
    # Imported here: torch takes seconds.
    from gradshard.stages.support.examination import examine, named_model, named_sources

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
