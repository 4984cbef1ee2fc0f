"""The stage ``analyze``: the models' gradient norms, signs that rounding turns, and the loss around images."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import params_option
from gradshard.stages.console.seeds import chosen_seed, seed_option


@click.command()
@seed_option
@params_option
def command(params: Params, given_seed: int | None) -> None:
    """Measure the input gradients of models, and the loss around images, for one seed.

    Reads the prepared test images and the weights of the models that `analysis` names; robust models are those trained
    with this seed. Writes analysis/SEED/gradients.json (gradient norms, as in the paper's table 7; the share of signs
    that fp32 gets wrong; how many images are like those of figure 2) and analysis/SEED/planes.npz (figures 2 and 3).
    Models that are the same for every seed are measured with the first seed only. If `analysis` names neither models
    nor a plane, nothing is measured and both files are empty. If the stage is killed, the same command continues with
    the images that are left.
    """
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is reported without it.
    from gradshard.stages.jobs.gradient_analysis import analyze

    analyze(params, seed)
