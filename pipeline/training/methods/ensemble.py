"""Ensemble adversarial training (Tramèr et al. 2017): clean images, and those that the model or a store perturbs."""

from dataclasses import replace

import torch
from torch import Tensor

from gradshard.pipeline.attacks.pgd import iterate_linf
from gradshard.pipeline.gradients.input_gradient import gradient_through, input_gradient
from gradshard.pipeline.gradients.loss import attack_labels, step_sign
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.combination import combined, moving_average
from gradshard.pipeline.training.data import Batch
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.fused_backward import grad_with_the_loss
from gradshard.pipeline.training.methods.method import Losses, Method, normal_noise, size_of_steps, uniform_noise
from gradshard.pipeline.training.passes import Passes
from gradshard.pipeline.types import SELF


class Ensemble(Method):
    """The weighted loss of clean and perturbed images, as ``Adversary`` defines it; without stores, Goodfellow's.

    It remembers the sources' recent losses if the sources' weights depend on them. ``steps`` and ``step_size``, in
    epsilons, are those of PGD, if that is the model's own attack.
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
        del shape
        self._adversary = adversary
        self._steps, self._step_size = steps, size_of_steps(steps, step_size)
        self._weights, self._recent = _combined_weights(adversary, device)

    def losses(self, batch: Batch, passes: Passes) -> Losses:
        """Compute the objective of a batch: ``both`` or ``half``, under one source or all."""
        adversary = self._adversary
        if adversary.combination is not None:
            return self._every_source(batch, passes)
        if adversary.objective == "half":
            return self._half_batch(batch, passes)
        return self._full_batch(batch, passes)

    def remember(self, batch: Batch, losses: Losses, ranks: Rank) -> None:
        """Let a step's losses under each source count in the sources' weights from the next step on."""
        if self._recent is not None and losses.by_source is not None:
            found = ranks.total(losses.by_source)
            self._recent = moving_average(self._recent, found, decay=self._adversary.ema_decay)

    def state(self) -> dict[str, Tensor]:
        """Return the moving average of each source's loss, if it counts."""
        return {} if self._recent is None else {"recent_losses": self._recent}

    def _full_batch(self, batch: Batch, passes: Passes) -> Losses:
        """Count every image twice, clean and perturbed (section 5.1)."""
        adversary = self._adversary
        if batch.live and adversary.attack == "fgsm" and adversary.live_mode == "train":
            clean, perturbed = self._clean_loss_and_perturbed(batch, passes)
            adversarial = passes.mean_loss(passes.logits(perturbed, batch.part), batch)
        else:
            perturbed = self._perturbed(batch, passes)
            both = passes.logits(torch.cat([batch.images, perturbed]), batch.part, copies=2)
            clean, adversarial = (
                passes.mean_loss(part, batch) for part in (both[: len(batch.images)], both[len(batch.images) :])
            )
        return self._weighed(clean, adversarial)

    def _clean_loss_and_perturbed(self, batch: Batch, passes: Passes) -> tuple[Tensor, Tensor]:
        """Return the clean loss and the images that the model perturbs, from one clean pass, as in the authors' code.

        If one backward pass serves both, the loss has no graph, because its gradient is already in the parameters'
        ``grad``.
        """
        adversary = self._adversary
        inputs, random = batch.images.detach().requires_grad_(True), torch.get_rng_state()
        logits = passes.logits(inputs, batch.part)
        clean, logits = passes.mean_loss(logits, batch), passes.own(logits)
        chosen = attack_labels(logits, batch.labels, adversary.policy)
        fused = None
        if passes.alone and batch.part.whole:
            fused = grad_with_the_loss(passes, logits, inputs, batch, chosen, adversary, random)
        if fused is None:
            grad, _ = gradient_through(
                logits, inputs, chosen, gradient=adversary.gradient, policy="true", keep_graph=True
            )
        else:
            grad, clean = fused, clean.detach()
        return clean, perturb(batch.images, step_sign(adversary.policy) * grad.sign(), batch.epsilon)

    def _every_source(self, batch: Batch, passes: Passes) -> Losses:
        """Count every image clean and perturbed by each source, all in one pass."""
        adversary = self._adversary
        assert adversary.combination is not None
        assert self._weights is not None
        stored = iter(batch.perturbed())
        own = [self._crafted(batch, passes, batch.epsilon, None)] if batch.live else []
        versions = [batch.images, *(own[0] if name == SELF else next(stored) for name in adversary.sources)]
        logits = passes.logits(torch.cat(versions), batch.part, copies=len(versions))
        labels = batch.labels.repeat(len(versions))
        losses = passes.cross_entropy(logits, labels, reduction="none").view(len(versions), -1)
        parts, total = losses.sum(1) / batch.part.total, batch.part.total
        weights = self._weights if self._recent is None else self._weights * self._recent
        adversarial = combined(adversary.combination, losses[1:], weights, k=adversary.top_k).sum() / total
        return replace(self._weighed(parts[0], adversarial), by_source=parts[1:].detach())

    def _half_batch(self, batch: Batch, passes: Passes) -> Losses:
        """Replace every second image of the whole batch (Kurakin et al. 2017, algorithm 1)."""
        total, first = batch.part.total, batch.part.rows.start
        replaced = torch.arange(first, first + len(batch.images), device=batch.images.device) % 2 == 0
        images = batch.images.clone()
        # Also if none is, as in a piece of a single row: the crafting pass draws dropout masks before the other.
        images[replaced] = self._perturbed(batch, passes, replaced)
        losses = passes.cross_entropy(passes.logits(images, batch.part), batch.labels, reduction="none")
        counts, sums = (total // 2, (total + 1) // 2), (losses[~replaced].sum(), losses[replaced].sum())
        weight = self._adversary.adversarial_weight
        return Losses(
            total=(sums[0] + weight * sums[1]) / (counts[0] + weight * counts[1]),
            clean=sums[0].detach() / max(counts[0], 1),
            adversarial=sums[1].detach() / counts[1],
        )

    def _perturbed(self, batch: Batch, passes: Passes, chosen: Tensor | None = None) -> Tensor:
        """Return the chosen images, by default all, perturbed along stored signs or by the model itself."""
        if not batch.live:
            return batch.perturbed(chosen)
        epsilon = _chosen(batch.epsilon, chosen) if isinstance(batch.epsilon, Tensor) else batch.epsilon
        return self._crafted(batch, passes, epsilon, chosen)

    def _crafted(self, batch: Batch, passes: Passes, epsilon: float | Tensor, chosen: Tensor | None) -> Tensor:
        """Return the chosen images, perturbed by the model in a separate pass, which changes no running statistics."""
        adversary, start, policy = self._adversary, batch.images, self._adversary.policy
        if adversary.attack == "pgd":
            return self._climbed(batch, passes, epsilon, chosen)
        if adversary.attack == "rand_fgsm":
            start = perturb(start, normal_noise(batch).sign(), adversary.alpha)
            epsilon = epsilon - adversary.alpha
        start, labels = _chosen(start, chosen), _chosen(batch.labels, chosen)
        with passes.crafting(batch.part, mode=adversary.live_mode, chosen=chosen) as model:
            if adversary.label_at == "clean":
                with torch.no_grad():
                    labels = attack_labels(model(_chosen(batch.images, chosen)), labels, policy)
                policy = "true"
            grad, _ = input_gradient(model, start, labels, gradient=adversary.gradient, policy=policy)
        return perturb(start, step_sign(adversary.policy) * grad.sign(), epsilon)

    def _climbed(self, batch: Batch, passes: Passes, epsilon: float | Tensor, chosen: Tensor | None) -> Tensor:
        """Return the chosen images, perturbed by PGD about the clean image's label from a uniform start in the ball."""
        adversary, policy = self._adversary, self._adversary.policy
        images, labels = _chosen(batch.images, chosen), _chosen(batch.labels, chosen)
        with passes.crafting(batch.part, mode=adversary.live_mode, chosen=chosen) as model:
            if policy != "true":
                with torch.no_grad():
                    labels = attack_labels(model(images), labels, policy)
            return iterate_linf(
                model,
                images,
                labels,
                start=images + epsilon * _chosen(uniform_noise(batch), chosen),
                epsilon=epsilon,
                step=self._step_size * epsilon,
                steps=self._steps,
                loss=adversary.gradient,
                targeted=policy == "least_likely",
            )

    def _weighed(self, clean: Tensor, adversarial: Tensor) -> Losses:
        """Return alpha J(x) + (1 - alpha) J(x_adv), alpha being ``clean_weight``."""
        weight = self._adversary.clean_weight
        return Losses(weight * clean + (1 - weight) * adversarial, clean.detach(), adversarial.detach())


def _combined_weights(adversary: Adversary, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Return the sources' weights if losses are combined, and the initial moving average if these depend on it."""
    if adversary.combination is None:
        return None, None
    weights = torch.tensor([adversary.weights.get(name, 1.0) for name in adversary.sources], device=device)
    return weights, torch.ones_like(weights) if adversary.combination == "loss_weighted" else None


def _chosen(values: Tensor, chosen: Tensor | None) -> Tensor:
    return values if chosen is None else values[chosen]
