"""FGSM-MEP (Jia et al. 2022, "Prior From the Momentum of All Previous Epochs"): FGSM-PGI from a steadier start."""

import torch
from torch import Tensor

from gradshard.pipeline.gradients.perturb import project
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.methods.fgsm_pgi import FgsmPGI
from gradshard.pipeline.training.methods.method import Losses
from gradshard.pipeline.training.priors import PriorBuffer

_LEAST_NORM = 1e-30


class FgsmMEP(FgsmPGI):
    """FGSM-PGI whose next d is clip(d + epsilon * sign(m')), m' = g / ||g||_1 + ``prior_momentum`` * m.

    g is grad J(x + d), and m that image's m' of the previous epoch, 0 in every reset epoch. It trains on FGSM-PGI's d',
    along the sign of g alone, as the authors' code does. That code divides by the norm over the whole batch; this one
    divides by each image's own, so that no image's m' depends on those beside it. d is kept as a sign, m in float32: 4
    bytes per pixel, in the memory of the model's device and in every checkpoint.
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
        prior_momentum: float,
    ) -> None:
        super().__init__(
            adversary, shape=shape, device=device, prior=prior, reset_epochs=reset_epochs, prior_weight=prior_weight
        )
        self._decay = prior_momentum
        self._momentum = torch.zeros((len(prior), *shape[1:]), device=device)

    def left_behind(
        self, losses: Losses, batch: Batch, *, start: Tensor, grad: Tensor, perturbed: Tensor, before: Tensor
    ) -> Losses:
        """Add to a step's losses the perturbation along the momentum, and the momentum."""
        del perturbed
        with torch.no_grad():
            kept = self._momentum_of(batch)
            momentum = normalised(grad) + self._decay * batch.origin.view(kept)
            following = project(start + batch.epsilon * momentum.sign(), batch.images, batch.epsilon)
            found = super().written_back(losses, batch, following, before)
            assert found.prior is not None
            return found.with_prior(found.prior._replace(momentum=batch.origin.undo(momentum, kept)))

    def remember(self, batch: Batch, losses: Losses, ranks: Rank) -> None:
        """Keep each image's perturbation and momentum for the next epoch."""
        super().remember(batch, losses, ranks)
        assert losses.prior is not None
        assert losses.prior.momentum is not None
        device, total = self._momentum.device, batch.part.total
        rows = ranks.gathered(torch.from_numpy(losses.prior.rows).to(device), total)
        self._momentum[rows] = ranks.gathered(losses.prior.momentum, total)

    def state(self) -> dict[str, Tensor]:
        """Return the momentum of every row, float32 (N, C, H, W)."""
        return {"momentum": self._momentum}

    def _momentum_of(self, batch: Batch) -> Tensor:
        if self.starts_anew(batch):
            return torch.zeros_like(batch.images)
        return self._momentum[torch.from_numpy(batch.origin.rows).to(self._momentum.device)]


def normalised(grad: Tensor) -> Tensor:
    """Divide each image's gradient, (n, C, H, W), by its L1 norm; one that is 0 stays 0."""
    return grad / grad.abs().sum((1, 2, 3), keepdim=True).clamp(min=_LEAST_NORM)
