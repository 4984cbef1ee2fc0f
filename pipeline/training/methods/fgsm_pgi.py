"""FGSM-PGI (Jia et al. 2022, "Prior-Guided Initialization based Regularization"): FGSM-EP, kept close to the prior."""

import torch
from torch import Tensor

from gradshard.pipeline.gradients.input_gradient import gradient_through
from gradshard.pipeline.gradients.perturb import project
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.methods.fgsm_ep import FgsmEP
from gradshard.pipeline.training.methods.method import Losses
from gradshard.pipeline.training.passes import Passes
from gradshard.pipeline.training.priors import PriorBuffer


class FgsmPGI(FgsmEP):
    """min J(x + d') + ``prior_weight`` * ||f(x + d') - f(x + d)||^2 / K, d and d' those of FGSM-EP, f its K logits.

    The paper has the squared L2 distance; its authors' code takes the mean over classes, to which its weight of 10
    belongs. Gradients flow through both passes, of which the one from the prior also gives the direction of the step.
    """

    def __init__(
        self,
        adversary: Adversary,
        *,
        shape: tuple[int, ...],
        device: torch.device,
        prior: PriorBuffer,
        reset_epochs: int,
        prior_weight: float,
    ) -> None:
        super().__init__(adversary, shape=shape, device=device, prior=prior, reset_epochs=reset_epochs)
        self._prior_weight = prior_weight

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute J(x + d'), and the distance of its logits from those of x + d."""
        before = self.prior_of(batch)
        start = project(batch.images + batch.epsilon * batch.origin.view(before), batch.images, batch.epsilon)
        start.requires_grad_(True)
        logits_before = passes.logits(start, batch.part)
        grad, _ = gradient_through(
            passes.own(logits_before), start, batch.labels, gradient=self._gradient, policy="true", keep_graph=True
        )
        perturbed = project(start.detach() + batch.epsilon * grad.sign(), batch.images, batch.epsilon)
        logits = passes.logits(perturbed, batch.part)
        adversarial = passes.mean_loss(logits, batch)
        total = adversarial + self._prior_weight * mean_square_distance(
            passes.own(logits), passes.own(logits_before), batch
        )
        return self.left_behind(
            Losses(total, adversarial=adversarial.detach()),
            batch,
            start=start.detach(),
            grad=grad,
            perturbed=perturbed,
            before=before,
        )

    def left_behind(
        self, losses: Losses, batch: Batch, *, start: Tensor, grad: Tensor, perturbed: Tensor, before: Tensor
    ) -> Losses:
        """Add to a step's losses what it leaves for the next epoch: d'.

        Args:
            losses: of the step.
            batch: of the step.
            start: x + d, (n, C, H, W).
            grad: of the loss there, (n, C, H, W).
            perturbed: x + d', (n, C, H, W).
            before: what ``prior_of`` gave.
        """
        del start, grad
        return self.written_back(losses, batch, perturbed, before)


def mean_square_distance(one: Tensor, other: Tensor, batch: Batch) -> Tensor:
    """Return this rank's part of the mean over the whole batch and the classes of the squared distance of logits."""
    return (one.float() - other.float()).square().mean(1).sum() / batch.part.total
