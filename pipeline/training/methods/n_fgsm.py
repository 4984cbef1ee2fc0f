"""N-FGSM (de Jorge et al. 2022, "Make some noise", section 4, algorithm 1): a step from far noise, not clipped."""

import torch

from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.methods.method import Losses, Method, loss_of_perturbed, uniform_noise
from gradshard.pipeline.training.passes import Passes


class NFGSM(Method):
    """min J(x' + a sign(grad J(x'))), x' = x + n, n uniform in [-k e, k e].

    k is ``noise``, 2 in the paper, and the step a is ``step_size`` epsilons e, 1 there. The result is not clipped to
    the ball around x, which it leaves by up to k e; as in the authors' code, it and x' are clipped to [0, 1].
    """

    def __init__(
        self, adversary: Adversary, *, shape: tuple[int, ...], device: torch.device, noise: float, step_size: float
    ) -> None:
        del shape, device
        self._gradient = adversary.gradient
        self._noise, self._step_size = noise, step_size

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute the loss of the images that were moved at random and stepped."""
        moved = perturb(batch.images, uniform_noise(batch), self._noise * batch.epsilon)
        with passes.crafting(batch.part) as model:
            grad, _ = input_gradient(model, moved, batch.labels, gradient=self._gradient)
        return loss_of_perturbed(perturb(moved, grad.sign(), self._step_size * batch.epsilon), batch, passes)
