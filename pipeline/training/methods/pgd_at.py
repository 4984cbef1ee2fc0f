"""PGD-AT (Madry et al. 2018, section 2.1, equation 2.1): training on the images that PGD perturbs, and on no others."""

import torch

from gradshard.pipeline.attacks.pgd import iterate_linf
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.methods.method import Losses, Method, loss_of_perturbed, size_of_steps, uniform_noise
from gradshard.pipeline.training.passes import Passes


class PgdAT(Method):
    """min J(x_adv), x_adv by ``steps`` steps of ``step_size`` epsilons from a random start in the ball.

    Each step follows the sign of the gradient of J for the true label, and is clipped to within epsilon of x and to
    [0, 1]. The model crafts in train mode, as in the authors' code.
    """

    def __init__(
        self,
        adversary: Adversary,
        *,
        shape: tuple[int, ...],
        device: torch.device,
        steps: int,
        step_size: float | None,
    ) -> None:
        del shape, device
        self._gradient = adversary.gradient
        self._steps = steps
        self._step_size = size_of_steps(steps, step_size)

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute J(x_adv)."""
        with passes.crafting(batch.part) as model:
            perturbed = iterate_linf(
                model,
                batch.images,
                batch.labels,
                start=batch.images + batch.epsilon * uniform_noise(batch),
                epsilon=batch.epsilon,
                step=self._step_size * batch.epsilon,
                steps=self._steps,
                loss=self._gradient,
            )
        return loss_of_perturbed(perturbed, batch, passes)
