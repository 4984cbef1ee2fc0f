"""The loss of one batch: how its images are perturbed, and how clean and perturbed ones are weighed."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.gradients.input_gradient import gradient_through, input_gradient
from gradshard.pipeline.gradients.loss import attack_labels, step_sign
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.models.precision import Arithmetic, precision_context
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.batch_norm import frozen_statistics, synchronised
from gradshard.pipeline.training.combination import combined
from gradshard.pipeline.training.data import Batch, RankSlice
from gradshard.pipeline.training.dropping import dropping
from gradshard.pipeline.training.fused_backward import grad_with_the_loss, row_by_row
from gradshard.pipeline.types import SELF, BatchNorm


@dataclass(frozen=True)
class Losses:
    """``total`` is what to go down; ``clean`` and ``adversarial`` are this rank's part of the means over the batch.

    ``by_source`` is, where losses under several sources are combined, this rank's part of the mean under each, (S,).

    What of the parameters' gradient is in their ``grad`` already, is not in the graph of ``total``.
    """

    total: Tensor
    clean: Tensor
    adversarial: Tensor | None = None
    by_source: Tensor | None = None


class AdversarialLoss(nn.Module):
    """The losses of a batch under a model, as ``Adversary`` defines them; plain cross-entropy without one.

    With several ranks ``total`` is so scaled that the mean of its gradients over the ranks is the gradient of the
    loss of the whole batch.
    """

    def __init__(
        self,
        model: nn.Module,
        adversary: Adversary | None,
        *,
        arithmetic: Arithmetic,
        batch_norm: BatchNorm = "per_rank",
        ranks: int = 1,
        passes: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._adversary = adversary
        self._arithmetic = arithmetic
        self._synchronised = batch_norm == "synchronised" and ranks > 1
        self._ranks = ranks
        # Kept out of the module's children: compiled, it is the same model once more.
        self._passes = (passes or model,)
        # Ranks add up their gradients in the one backward pass that ``total`` is for.
        self._alone = ranks == 1 and passes is None and row_by_row(model)

    def forward(self, batch: Batch, live: bool, weights: Tensor | None = None) -> Losses:
        """The losses; ``live`` says that the model itself crafts, ``weights``, (S,), what combined sources weigh."""
        with (
            precision_context(self._arithmetic, batch.images.device),
            synchronised() if self._synchronised else nullcontext(),
        ):
            if self._adversary is None:
                return self._weighed(self._loss(self._logits(batch.images, batch.part), batch), None, 1.0)
            if weights is not None:
                return self._every_source(batch, self._adversary, live, weights)
            if self._adversary.objective == "half":
                return self._half_batch(batch, self._adversary, live)
            return self._full_batch(batch, self._adversary, live)

    def _full_batch(self, batch: Batch, adversary: Adversary, live: bool) -> Losses:
        """Every image counts twice, clean and perturbed (section 5.1)."""
        if live and adversary.attack == "fgsm" and adversary.live_mode == "train":
            clean, perturbed = self._clean_loss_and_perturbed(batch, adversary)
            adversarial = self._loss(self._logits(perturbed, batch.part), batch)
        else:
            perturbed = self._perturbed(batch, adversary, live)
            both = self._logits(torch.cat([batch.images, perturbed]), batch.part, copies=2)
            clean, adversarial = (
                self._loss(part, batch) for part in (both[: len(batch.images)], both[len(batch.images) :])
            )
        return self._weighed(clean, adversarial, adversary.clean_weight)

    def _clean_loss_and_perturbed(self, batch: Batch, adversary: Adversary) -> tuple[Tensor, Tensor]:
        """The clean loss and the images that the model perturbs, from one clean pass, as in the authors' code.

        Where one backward pass serves both, the loss that is given has no graph: its gradient is there already.
        """
        inputs, random = batch.images.detach().requires_grad_(True), torch.get_rng_state()
        logits = self._logits(inputs, batch.part)
        clean, chosen = self._loss(logits, batch), attack_labels(logits, batch.labels, adversary.policy)
        fused = None
        if self._alone:
            fused = grad_with_the_loss(self.model, logits, inputs, batch, chosen, adversary, random)
        if fused is None:
            grad, _ = gradient_through(
                logits, inputs, chosen, gradient=adversary.gradient, policy="true", keep_graph=True
            )
        else:
            grad, clean = fused, clean.detach()
        return clean, perturb(batch.images, step_sign(adversary.policy) * grad.sign(), batch.epsilon)

    def _every_source(self, batch: Batch, adversary: Adversary, live: bool, weights: Tensor) -> Losses:
        """Every image counts clean and perturbed by each source, all in one pass."""
        assert adversary.combination is not None
        assert batch.signs is not None
        stored = iter(perturb(batch.images, batch.signs, batch.epsilon))
        own = [self._crafted(batch, adversary, batch.epsilon, None)] if live else []
        versions = [batch.images, *(own[0] if name == SELF else next(stored) for name in adversary.sources)]
        logits = self._logits(torch.cat(versions), batch.part, copies=len(versions))
        labels = batch.labels.repeat(len(versions))
        losses = functional.cross_entropy(logits.float(), labels, reduction="none").view(len(versions), -1)
        parts, total = losses.sum(1) / batch.part.total, batch.part.total
        adversarial = combined(adversary.combination, losses[1:], weights, k=adversary.top_k).sum() / total
        weighed = self._weighed(parts[0], adversarial, adversary.clean_weight)
        return replace(weighed, by_source=parts[1:].detach())

    def _half_batch(self, batch: Batch, adversary: Adversary, live: bool) -> Losses:
        """Every second image of the whole batch is replaced (Kurakin et al. 2017, algorithm 1)."""
        total, first = batch.part.total, batch.part.rows.start
        replaced = torch.arange(first, first + len(batch.images), device=batch.images.device) % 2 == 0
        images = batch.images.clone()
        images[replaced] = self._perturbed(batch, adversary, live, replaced)
        losses = functional.cross_entropy(self._logits(images, batch.part).float(), batch.labels, reduction="none")
        counts, sums = (total // 2, (total + 1) // 2), (losses[~replaced].sum(), losses[replaced].sum())
        weight = adversary.adversarial_weight
        return Losses(
            total=self._ranks * (sums[0] + weight * sums[1]) / (counts[0] + weight * counts[1]),
            clean=sums[0].detach() / max(counts[0], 1),
            adversarial=sums[1].detach() / counts[1],
        )

    def _perturbed(self, batch: Batch, adversary: Adversary, live: bool, chosen: Tensor | None = None) -> Tensor:
        """The chosen images, by default all, perturbed along stored signs or by the model itself."""
        epsilon = _chosen(batch.epsilon, chosen) if isinstance(batch.epsilon, Tensor) else batch.epsilon
        if live:
            return self._crafted(batch, adversary, epsilon, chosen)
        assert batch.signs is not None
        return perturb(_chosen(batch.images, chosen), _chosen(batch.signs, chosen), epsilon)

    def _crafted(self, batch: Batch, adversary: Adversary, epsilon: float | Tensor, chosen: Tensor | None) -> Tensor:
        """The chosen images, perturbed by the model in a pass of its own, which moves no running statistics."""
        start = batch.images
        if adversary.attack == "rand_fgsm":
            noise = torch.randn((batch.part.total, *start.shape[1:]), device=start.device)
            start = perturb(start, batch.part.of(noise).sign(), adversary.alpha)
            epsilon = epsilon - adversary.alpha
        start, labels = _chosen(start, chosen), _chosen(batch.labels, chosen)
        self.model.train(adversary.live_mode == "train")
        with frozen_statistics(self.model), dropping(batch.part, chosen):
            grad, _ = input_gradient(
                self._passes[0], start, labels, gradient=adversary.gradient, policy=adversary.policy
            )
        self.model.train()
        return perturb(start, step_sign(adversary.policy) * grad.sign(), epsilon)

    def _logits(self, images: Tensor, part: RankSlice, *, copies: int = 1) -> Tensor:
        with dropping(part, None, copies=copies):
            logits: Tensor = self._passes[0](images)
        return logits

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """This rank's part of the mean over the whole batch."""
        if batch.part.whole:
            return functional.cross_entropy(logits.float(), batch.labels)
        return functional.cross_entropy(logits.float(), batch.labels, reduction="sum") / batch.part.total

    def _weighed(self, clean: Tensor, adversarial: Tensor | None, clean_weight: float) -> Losses:
        total = clean if adversarial is None else clean_weight * clean + (1 - clean_weight) * adversarial
        return Losses(self._ranks * total, clean.detach(), None if adversarial is None else adversarial.detach())


def _chosen(values: Tensor, chosen: Tensor | None) -> Tensor:
    return values if chosen is None else values[chosen]
