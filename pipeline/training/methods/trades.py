"""TRADES (Zhang et al. 2019, section 3.2, equation 5, and algorithm 1): clean loss, and how far outputs can move."""

import torch
from torch import Tensor
from torch.nn import functional

from gradshard.pipeline.attacks.pgd import iterate_linf
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.methods.method import Losses, Method, normal_noise, size_of_steps
from gradshard.pipeline.training.passes import Passes

# The deviation of the start, in units of pixels: the divergence has no gradient at the image itself.
_START = 0.001


class Trades(Method):
    """min J(x) + beta max KL(p(x) || p(x')), the maximum over the ball, p the softmax of the logits.

    x' is the end of ``steps`` steps of ``step_size`` epsilons along the sign of the divergence's own gradient, from
    normal noise of deviation 0.001 (algorithm 1). ``beta`` is the paper's 1 / lambda, 6 in its section 5.3. As in the
    authors' code the model crafts in eval mode, and gradients pass through both p(x) and p(x'); unlike there, the start
    is clipped to [0, 1], and the p(x) of all steps is computed once.
    """

    def __init__(
        self,
        adversary: Adversary,
        *,
        shape: tuple[int, ...],
        device: torch.device,
        steps: int,
        step_size: float | None,
        beta: float,
    ) -> None:
        del adversary, shape, device
        self._steps = steps
        self._step_size = size_of_steps(steps, step_size)
        self._beta = beta

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute J(x) + beta KL; ``adversarial`` is the divergence, without beta."""
        perturbed = self._crafted(batch, passes)
        logits = passes.logits(batch.images, batch.part)
        clean = passes.mean_loss(logits, batch)
        beside = passes.logits(perturbed, batch.part)
        moved = divergence(passes.own(logits), passes.own(beside)) / batch.part.total
        return Losses(clean + self._beta * moved, clean.detach(), moved.detach())

    def _crafted(self, batch: Batch, passes: Passes) -> Tensor:
        with passes.crafting(batch.part, mode="eval") as model:
            with torch.no_grad():
                still = model(batch.images)
            return iterate_linf(
                model,
                batch.images,
                batch.labels,
                start=batch.images + _START * normal_noise(batch),
                epsilon=batch.epsilon,
                step=self._step_size * batch.epsilon,
                steps=self._steps,
                loss=lambda logits, _: divergence(still, logits),
            )


def divergence(still: Tensor, moved: Tensor) -> Tensor:
    """Return KL(p || q), summed over the examples, of the softmax p of ``still`` and q of ``moved``, (n, classes)."""
    p, q = still.float().log_softmax(1), moved.float().log_softmax(1)
    return functional.kl_div(q, p, reduction="sum", log_target=True)
