"""Fast-AT (Wong et al. 2020, "Fast is better than free", section 4, algorithm 3): FGSM from a random start."""

import torch

from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.methods.pgd_at import PgdAT


class FastAT(PgdAT):
    """min J(x + d), d = clip(d0 + a sign(grad J(x + d0)), -e, e), d0 uniform in the ball of radius e.

    The step a is ``step_size`` epsilons, 1.25 in the paper. As in the authors' code, both x + d0 and x + d are clipped
    to [0, 1] too, and the model crafts in train mode. It is PGD of one step, and prone to catastrophic overfitting.
    """

    def __init__(self, adversary: Adversary, *, shape: tuple[int, ...], device: torch.device, step_size: float) -> None:
        super().__init__(adversary, shape=shape, device=device, steps=1, step_size=step_size)
