"""FGSM-EP (Jia et al. 2022, "Prior From the Previous Epoch"): FGSM from where each image's last perturbation ended."""

import torch
from torch import Tensor

from gradshard.pipeline.attacks.pgd import iterate_linf
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.methods.method import Losses, Method, loss_of_perturbed
from gradshard.pipeline.training.passes import Passes, whole_batch
from gradshard.pipeline.training.priors import Kept, PriorBuffer


class FgsmEP(Method):
    """min J(x + d'), d' = clip(d + epsilon * sign(grad J(x + d))), d being that image's d' of the previous epoch.

    d' lies within epsilon and x + d' in [0, 1]. In every ``reset_epochs``-th epoch, from the first on, each pixel of d
    is -epsilon or +epsilon at random, as in the authors' code. The step follows the gradient of J for the true label,
    and the model crafts in train mode.
    """

    prior: PriorBuffer

    def __init__(
        self,
        adversary: Adversary,
        *,
        shape: tuple[int, ...],
        device: torch.device,
        prior: PriorBuffer,
        reset_epochs: int,
    ) -> None:
        del shape, device
        self.prior = prior
        self._gradient = adversary.gradient
        self._reset_epochs = reset_epochs

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute J(x + d')."""
        before = self.prior_of(batch)
        with passes.crafting(batch.part) as model:
            perturbed = iterate_linf(
                model,
                batch.images,
                batch.labels,
                start=batch.images + batch.epsilon * batch.origin.view(before),
                epsilon=batch.epsilon,
                step=batch.epsilon,
                steps=1,
                loss=self._gradient,
            )
        return self.written_back(loss_of_perturbed(perturbed, batch, passes), batch, perturbed, before)

    def remember(self, batch: Batch, losses: Losses, ranks: Rank) -> None:
        """Keep each image's perturbation for the next epoch."""
        assert losses.prior is not None
        self.prior.write(losses.prior, batch.part.total, ranks)

    def prior_of(self, batch: Batch) -> Tensor:
        """Return each image's d in units of epsilon, float32 (n, C, H, W), in the coordinates of the stored image."""
        if not self.starts_anew(batch):
            return self.prior.read(batch.origin.rows)
        device = batch.images.device
        return whole_batch(batch, lambda shape: 2.0 * torch.randint(0, 2, shape, device=device) - 1)

    def starts_anew(self, batch: Batch) -> bool:
        """Tell whether a batch belongs to a reset epoch, which continues from nothing."""
        return batch.origin.epoch % self._reset_epochs == 0

    def written_back(self, losses: Losses, batch: Batch, perturbed: Tensor, before: Tensor) -> Losses:
        """Add to a step's losses what its perturbed images, (n, C, H, W), leave for the next epoch.

        Args:
            losses: of the step.
            batch: of the step.
            perturbed: x + d'.
            before: what ``prior_of`` gave, which stays where a crop hid the image.
        """
        with torch.no_grad():
            after = self.prior.encode(batch.images, perturbed, batch.epsilon)
            return losses.with_prior(Kept(batch.origin.rows, batch.origin.undo(after, before)))
