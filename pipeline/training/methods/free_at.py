"""Free-AT (Shafahi et al. 2019, "Adversarial training for free!", algorithm 1): one backward pass, used twice."""

from dataclasses import replace

import torch
from torch import Tensor

from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.methods.method import Losses, Method, loss_of_perturbed
from gradshard.pipeline.training.passes import Passes


class FreeAT(Method):
    """min J(x + d); the same backward pass moves the parameters, and d by clip(d + a sign(grad J), -e, e).

    d begins at 0 and is carried from each step to the next: through the m = ``replays`` steps of a batch, and then on
    to the images in the same places of the next batch. So the rows are gone through m times less often
    (``TrainingRun.replays``). The step a is ``step_size`` epsilons e, 1 in the authors' code, where x + d is clipped to
    [0, 1] too before it passes. Signs are those of the cross-entropy that is trained on, at the clipped images: torch
    lets no gradient through a clipped pixel, and pixels of 0 or 1 are often clipped.
    """

    in_pieces = False

    def __init__(
        self,
        adversary: Adversary,
        *,
        shape: tuple[int, ...],
        device: torch.device,
        replays: int,
        step_size: float,
    ) -> None:
        del replays
        self._epsilon = adversary.epsilon
        self._step_size = step_size
        self._carried = torch.zeros(shape, device=device)

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute J(x + d), from which both gradients are taken."""
        carried = batch.part.of(self._carried[: batch.part.total])
        moved = (batch.images + carried).clamp(0, 1).requires_grad_(True)
        losses = loss_of_perturbed(moved, batch, passes)
        return replace(losses, inputs=moved)

    def remember(self, batch: Batch, losses: Losses, ranks: Rank) -> None:
        """Carry d on; every rank has that of the whole batch, because a smaller batch is divided differently."""
        assert losses.inputs is not None
        assert losses.inputs.grad is not None
        before = self._carried[: batch.part.total]
        stepped = batch.part.of(before) + self._step_size * self._epsilon * losses.inputs.grad.sign()
        carried = torch.zeros_like(before)
        carried[batch.part.rows] = stepped.clamp(-self._epsilon, self._epsilon)
        self._carried[: batch.part.total] = ranks.total(carried)

    def state(self) -> dict[str, Tensor]:
        """Return the perturbation that is carried on, (batch, C, H, W)."""
        return {"carried": self._carried}
