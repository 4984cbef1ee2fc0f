"""A substitute for a target that answers with labels alone, grown by Jacobian-based augmentation.

Papernot et al. 2017, "Practical black-box attacks against machine learning"; section 6 and appendix A.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.blackbox.oracle import Oracle
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.training.optimizers import Adam

_BATCH, _RATE = 64, 1e-3


@dataclass(frozen=True)
class SubstituteConfig:
    """Growth of a substitute, trained anew each round on a set that doubles each round, up to ``limit`` images."""

    rounds: int
    epochs: int
    step: float
    limit: int
    seed: int


def substitutes(
    oracle: Oracle, fresh: Callable[[], nn.Module], images: Tensor, growth: SubstituteConfig
) -> Iterator[tuple[nn.Module, int]]:
    """Yield the substitute after each round, in eval mode, and the queries so far.

    Only new images are queried, so the number of queries is the size of the set. If a round's new images would exceed
    the limit, only the first ones are taken.

    Args:
        oracle: the target, which is queried for labels only.
        fresh: makes an untrained substitute, the same each time.
        images: the adversary's own images, (m, C, H, W) in [0, 1].
        growth: the schedule.
    """
    labels = oracle.labels(images)
    for number in range(growth.rounds):
        model = fresh().to(images.device)
        _train(model, images, labels, epochs=growth.epochs, seed=growth.seed + number)
        yield model, oracle.queries
        new = jacobian_augmentation(model, images, labels, step=growth.step)[: max(0, growth.limit - len(images))]
        if number + 1 < growth.rounds and len(new):
            images, labels = torch.cat([images, new]), torch.cat([labels, oracle.labels(new)])


def _train(model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, seed: int) -> None:
    optimizer = Adam(model)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(epochs):
            for rows in _batches(torch.randperm(len(images), generator=generator)):
                torch.autograd.backward(functional.cross_entropy(model(images[rows]), labels[rows]))
                optimizer.step(_RATE)
    model.eval()


def _batches(order: Tensor) -> list[Tensor]:
    """Return the rows of each batch; batch normalisation does not take a single one, which joins the batch before."""
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def jacobian_augmentation(model: nn.Module, images: Tensor, labels: Tensor, *, step: float) -> Tensor:
    """Return clip(x + step * sign(d z_label / dx), 0, 1), (n, C, H, W): along the Jacobian's row of each label."""

    def moved(rows: slice) -> Tensor:
        part, of = images[rows], labels[rows]
        with torch.enable_grad():
            inputs = part.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(model(inputs).gather(1, of.unsqueeze(1)).sum(), inputs)
        return (part + step * grad.sign()).clamp_(0, 1)

    return torch.cat(in_microbatches(moved, images, model))
