"""The interface of a training method: from a step's batch to the loss to minimise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.passes import Passes, whole_batch
from gradshard.pipeline.training.priors import Kept, PriorBuffer, joined

# The length of all steps together, in epsilons: 10 steps of 2/255 at 8/255.
_REACH = 2.5


@dataclass(frozen=True)
class Losses:
    """Losses of a batch under a method; each is this rank's part of a mean over the whole batch.

    Attributes:
        total: the loss to minimise. Gradients that are already in the parameters' ``grad`` are not in its graph.
        clean: the loss of clean images, if the method has any.
        adversarial: that of perturbed ones, if it has any.
        by_source: where losses under S sources are combined, the loss under each, (S,).
        inputs: a tensor whose gradient the method wants from the backward pass of ``total``; it is in its ``grad`` by
            the time of ``Method.remember``.
        prior: what the method keeps of the images' perturbations.
    """

    total: Tensor
    clean: Tensor | None = None
    adversarial: Tensor | None = None
    by_source: Tensor | None = None
    inputs: Tensor | None = None
    prior: Kept | None = None

    def with_prior(self, kept: Kept) -> "Losses":
        """Return the same with what the method keeps of the images' perturbations."""
        return replace(self, prior=kept)


def added(parts: Sequence[Losses]) -> Losses:
    """Add up the losses of pieces of a batch; each is its part of the means over the whole batch."""
    if len(parts) == 1:
        return parts[0]
    clean, adversarial, by_source = (
        None if None in found else torch.stack(found).sum(0)
        for found in ([getattr(part, name) for part in parts] for name in ("clean", "adversarial", "by_source"))
    )
    kept = [part.prior for part in parts if part.prior is not None]
    return Losses(
        torch.stack([part.total for part in parts]).sum(),
        clean,
        adversarial,
        by_source,
        prior=joined(kept) if kept else None,
    )


class Method:
    """A way of training a model, for one run of it.

    It is made by its ``registry`` entry, with the ``Adversary``, the shape of a whole batch and the device, and its
    settings as keywords. A step's losses depend on the batch, the model and ``state`` alone; a method draws random
    numbers only by torch's generator, which the trainer seeds for every step.

    ``in_pieces`` says that, if a batch passes in several pieces, its losses are the sums of theirs: ``remember`` then
    gets the sums, and the last piece. ``prior`` is what the method keeps of each image for the next epoch, if anything;
    it is shared and saved apart from ``state``.
    """

    in_pieces = True
    prior: PriorBuffer | None = None

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute the losses of a step, from passes through the model that is trained."""
        raise NotImplementedError

    def remember(self, batch: Batch, losses: Losses, ranks: Rank) -> None:
        """Take from a step what the next ones need, after its backward pass and before the parameters move."""

    def state(self) -> dict[str, Tensor]:
        """Return what it remembers, by name; names and shapes never change, and a resumed run writes into these."""
        return {}


class Clean(Method):
    """Training on clean images."""

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute J(x)."""
        clean = passes.mean_loss(passes.logits(batch.images, batch.part), batch)
        return Losses(clean, clean=clean.detach())


def loss_of_perturbed(perturbed: Tensor, batch: Batch, passes: Passes) -> Losses:
    """Compute J(x_adv), the loss of perturbed images alone, (n, C, H, W)."""
    adversarial = passes.mean_loss(passes.logits(perturbed, batch.part), batch)
    return Losses(adversarial, adversarial=adversarial.detach())


def size_of_steps(steps: int, given: float | None) -> float:
    """Return the size of each of PGD's steps, in epsilons; by default all steps together reach 2.5 epsilons."""
    return _REACH / steps if given is None else given


def uniform_noise(batch: Batch) -> Tensor:
    """Draw uniform numbers in [-1, 1), float32 in the shape of the images."""
    return whole_batch(batch, lambda shape: 2 * torch.rand(shape, device=batch.images.device) - 1)


def normal_noise(batch: Batch) -> Tensor:
    """Draw standard normal numbers, float32 in the shape of the images."""
    return whole_batch(batch, lambda shape: torch.randn(shape, device=batch.images.device))
