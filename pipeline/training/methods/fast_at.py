"""Fast-AT (Wong et al. 2020, "Fast is better than free", section 4, algorithm 3): FGSM from a random start."""

import torch

from gradshard.pipeline.attacks.pgd import iterate_linf
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.methods.method import Losses, Method, loss_of_perturbed, uniform_noise
from gradshard.pipeline.training.passes import Passes


class FastAT(Method):
    """min J(x + d), d = clip(d0 + a sign(grad J(x + d0)), -e, e), d0 uniform in the ball of radius e.

    The step a is ``step_size`` epsilons, 1.25 in the paper. As in the authors' code, both x + d0 and x + d are clipped
    to [0, 1] too, and the model crafts in train mode. It is PGD of one step, and prone to catastrophic overfitting.
    """

    def __init__(self, adversary: Adversary, *, shape: tuple[int, ...], device: torch.device, step_size: float) -> None:
        del shape, device
        self._gradient = adversary.gradient
        self._step_size = step_size

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute J(x + d)."""
        with passes.crafting(batch.part) as model:
            perturbed = iterate_linf(
                model,
                batch.images,
                batch.labels,
                start=batch.images + batch.epsilon * uniform_noise(batch),
                epsilon=batch.epsilon,
                step=self._step_size * batch.epsilon,
                steps=1,
                loss=self._gradient,
            )
        return loss_of_perturbed(perturbed, batch, passes)
