"""The stage ``analyze``: how large the models' gradients are, how often rounding turns a sign, and the loss around."""

import click

from gradshard.pipeline.config.schema import Params
from gradshard.stages.support.options import params_option
from gradshard.stages.support.seeds import chosen_seed, seed_option


@click.command()
@seed_option
@params_option
def command(params: Params, given_seed: int | None) -> None:
    """Measure the input gradients of models, the robust ones as they were trained with one seed, and the loss around.

    Reads the prepared test images and the weights that `analysis` names; writes analysis/SEED/gradients.json (norms, as
    in the paper's table 7, the share of signs that fp32 gets wrong, and how many images are as those of figure 2) and
    analysis/SEED/planes.npz (figures 2 and 3). Models that no seed changes are measured with the first alone. Without
    models and plane nothing is measured, and both are empty. Killed and started again, it goes on with the images that
    are left.
    """
    seed = chosen_seed(params, given_seed)
    # Imported here: torch takes seconds, and a mistake in the parameters is told without it.
    from gradshard.stages.support.gradient_analysis import analyze

    analyze(params, seed)
