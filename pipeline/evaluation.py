"""Error of every target under every attack from every source (sections 3.2 and 5.3).

An attack is crafted once per source and tried on all targets; if source and target are the same it is a white box.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pipeline.catalogue import OWN_LOSS, Draws, Strength, craft, draw
from pipeline.crafting import BATCH_PIXELS
from pipeline.vocabulary import AttackName, Gradient

# Test examples that share one draw of the attacks' random part, see ``block_draws``.
BLOCK = 500


@dataclass(frozen=True)
class Crafting:
    """One set of adversarial examples: who crafts it, and how."""

    source: str
    attack: AttackName
    gradient: Gradient
    strength: Strength


@dataclass(frozen=True)
class Cell:
    """One error rate: a target against a set of adversarial examples, or against the clean images (no crafting)."""

    target: str
    crafting: Crafting | None


def plan_craftings(
    attacks: Mapping[AttackName, Sequence[str]], gradients: Sequence[Gradient], strength: Strength
) -> list[Crafting]:
    """Every set of adversarial examples to craft, each once."""
    return [
        Crafting(source=source, attack=attack, gradient=gradient, strength=strength)
        for attack, sources in attacks.items()
        for gradient in gradients
        for source in sources
    ]


def cells(craftings: Sequence[Crafting], targets: Sequence[str]) -> list[Cell]:
    """Every error rate, in the order in which ``evaluate_block`` gives its rows: clean first, then by crafting."""
    return [Cell(target=t, crafting=c) for c in (None, *craftings) for t in targets]


def evaluate_block(
    models: Mapping[str, nn.Module],
    craftings: Sequence[Crafting],
    targets: Sequence[str],
    images: Tensor,
    labels: Tensor,
    *,
    draws: Draws,
) -> Tensor:
    """Whether each target classifies each example right.

    Args:
        models: sources and targets by name, in eval mode.
        craftings: the sets of adversarial examples.
        targets: the names of the models attacked.
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        draws: the random part of the attacks, for these images.

    Returns:
        Bool (len(cells), n), on the CPU.
    """
    size = max(1, BATCH_PIXELS // images[0].numel())
    batches = [slice(start, start + size) for start in range(0, len(images), size)]
    return torch.cat(
        [_evaluate_batch(models, craftings, targets, images[b], labels[b], draws[b]) for b in batches], dim=1
    )


def block_draws(shape: torch.Size, restarts: int, *, seed: int, block: int, device: torch.device) -> Draws:
    """The random part for one block of test examples: a pure function of (seed, block), the same on every device."""
    drawn = draw(shape, restarts, generator=torch.Generator().manual_seed(seed * 1_000_003 + block))
    return Draws(drawn.signs.to(device), drawn.starts.to(device), drawn.seed)


def worst_cases(planned: Sequence[Cell]) -> list[tuple[str, Gradient, list[int]]]:
    """For every target and gradient, the cells over which its worst case is taken: an example counts as right only if
    it is right in all of them, the clean image among them.
    """
    gradients = dict.fromkeys(cell.crafting.gradient for cell in planned if cell.crafting is not None)
    targets = dict.fromkeys(cell.target for cell in planned)
    return [
        (
            target,
            gradient,
            [
                index
                for index, cell in enumerate(planned)
                if cell.target == target and (cell.crafting is None or cell.crafting.gradient == gradient)
            ],
        )
        for gradient in gradients
        for target in targets
    ]


def _evaluate_batch(
    models: Mapping[str, nn.Module],
    craftings: Sequence[Crafting],
    targets: Sequence[str],
    images: Tensor,
    labels: Tensor,
    draws: Draws,
) -> Tensor:
    rows = []
    for examples in _sets(models, craftings, images, labels, draws):
        with torch.no_grad():
            rows += [(models[target](examples).argmax(1) == labels).cpu() for target in targets]
    return torch.stack(rows)


def _sets(
    models: Mapping[str, nn.Module],
    craftings: Sequence[Crafting],
    images: Tensor,
    labels: Tensor,
    draws: Draws,
) -> Iterator[Tensor]:
    yield images
    kept: dict[Crafting, Tensor] = {}
    for crafting in craftings:
        own_loss = crafting.attack in OWN_LOSS
        alike = replace(crafting, gradient="exact") if own_loss else crafting
        examples = kept.get(alike)
        if examples is None:
            examples = craft(
                crafting.attack,
                models[crafting.source],
                images,
                labels,
                strength=crafting.strength,
                draws=draws,
                gradient=crafting.gradient,
            )
        if own_loss:
            kept[alike] = examples
        yield examples
