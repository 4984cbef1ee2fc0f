"""Error of every target under every attack from every source (sections 3.2 and 5.3).

An attack is crafted once per source and tried on all targets; if source and target are the same it is a white box. For
each target and example the rank of the true label is kept, from which the errors for any top k follow.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.crafting import AttackNoise, craft_by_name, sample_noise
from gradshard.pipeline.attacks.registry import ATTACKS, Attack, AttackConfig
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.types import Gradient, LabelPolicy

Crafted = Callable[["AdversarialSet", Tensor, Tensor], object]

# Test examples that share one draw of the attacks' random part, see ``block_draws``.
BLOCK = 500


@dataclass(frozen=True)
class AdversarialSet:
    """One set of adversarial examples: who crafts it, and how."""

    source: str
    attack: str
    gradient: Gradient
    strength: AttackConfig
    label: LabelPolicy = "true"


@dataclass(frozen=True)
class Case:
    """One error rate: a target against a set of adversarial examples, or against the clean images (no crafting)."""

    target: str
    crafting: AdversarialSet | None

    @property
    def own(self) -> bool:
        """Tell whether the paper's table 5 measures it on all test images: clean ones, and the model's own FGSM."""
        return self.crafting is None or (self.crafting.attack, self.crafting.source) == ("fgsm", self.target)


def plan_craftings(
    sources: Mapping[str, Sequence[str]],
    gradients: Sequence[Gradient],
    strength: AttackConfig,
    *,
    label: LabelPolicy = "true",
    attacks: Mapping[str, Attack] = ATTACKS,
) -> list[AdversarialSet]:
    """Return every set of adversarial examples to craft, each once.

    Args:
        sources: per attack, by name, the models that craft it.
        gradients: the gradients that each attack is crafted with.
        strength: of the attacks.
        label: the label that ``targeted`` attacks use; all others step away from the true label.
        attacks: the table in which the names are looked up.
    """
    return [
        AdversarialSet(source, attack, gradient, strength, label if attacks[attack].targeted else "true")
        for attack, crafters in sources.items()
        for gradient in gradients
        for source in crafters
    ]


def plan_cases(craftings: Sequence[AdversarialSet], targets: Sequence[str]) -> list[Case]:
    """Return every error rate, in the order in which ``evaluate_block`` gives its rows: clean first, then by crafting.

    Args:
        craftings: the sets of adversarial examples.
        targets: the names of the models attacked.
    """
    return [Case(target=target, crafting=crafting) for crafting in (None, *craftings) for target in targets]


def evaluate_block(
    models: Mapping[str, nn.Module],
    planned: Sequence[Case],
    images: Tensor,
    labels: Tensor,
    *,
    draws: AttackNoise,
    attacks: Mapping[str, Attack] = ATTACKS,
    crafted: Crafted | None = None,
) -> Tensor:
    """Rank each example's true label by each target; every set of examples is crafted once.

    Args:
        models: sources and targets by name, in eval mode.
        planned: what to measure, as ``plan_cases`` orders it.
        images: (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        draws: the random part of the attacks, for these images.
        attacks: the table in which names of attacks are looked up.
        crafted: called with every set, some images and the examples made from them, for inspection.

    Returns:
        Int32 (len(planned), n), on the CPU: how many other classes' logits are not below that of the true label; an
        example is right in the top k if that is less than k.
    """

    def ranks(rows: slice) -> Tensor:
        return _evaluate_batch(models, planned, images[rows], labels[rows], draws[rows], attacks, crafted)

    return torch.cat(in_microbatches(ranks, images, *models.values()), dim=1)


def block_draws(shape: torch.Size, restarts: int, *, seed: int, block: int, device: torch.device) -> AttackNoise:
    """Draw the random part of one block of test examples: a pure function of (seed, block), equal on every device."""
    generator = torch.Generator().manual_seed((operator.index(seed) * 1_000_003 + block) % (1 << 64))
    return sample_noise(shape, restarts, generator=generator).to(device)


def worst_cases(planned: Sequence[Case]) -> list[tuple[str, Gradient, list[int]]]:
    """Return, for each target and gradient, the cells of its worst case, that of the clean images among them.

    An example counts as right only if it is right in all of them.
    """
    gradients = dict.fromkeys(cell.crafting.gradient for cell in planned if cell.crafting is not None)
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
        for target in dict.fromkeys(cell.target for cell in planned)
    ]


def members_of(
    planned: Sequence[Case], target: str, gradient: Gradient, *, sources: Sequence[str], attacks: Sequence[str]
) -> list[int]:
    """Find the cells of a target under some attacks from some sources, and that of its clean images."""
    return [
        index
        for index, cell in enumerate(planned)
        if cell.target == target
        and (
            cell.crafting is None
            or (
                cell.crafting.gradient == gradient
                and cell.crafting.source in sources
                and cell.crafting.attack in attacks
            )
        )
    ]


def true_label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the other classes whose logits are not below the true label's, int32 (n,): 0 if it is the prediction.

    A tie counts against the model, and so does a logit that is NaN.
    """
    own = logits.gather(1, labels.unsqueeze(1))
    return (~(logits < own)).sum(1, dtype=torch.int32) - 1


def _evaluate_batch(
    models: Mapping[str, nn.Module],
    planned: Sequence[Case],
    images: Tensor,
    labels: Tensor,
    draws: AttackNoise,
    attacks: Mapping[str, Attack],
    crafted: Crafted | None,
) -> Tensor:
    rows, made = [], []
    kept: dict[AdversarialSet, Tensor] = {}
    for crafting, group in groupby(planned, key=lambda cell: cell.crafting):
        examples = images if crafting is None else _examples(models, crafting, images, labels, draws, attacks, kept)
        if crafting is not None and crafted is not None:
            made.append((crafting, examples))
        with torch.no_grad():
            rows += [true_label_ranks(models[cell.target](examples), labels).cpu() for cell in group]
    # Only now, because a batch that runs out of memory is crafted again.
    if crafted is not None:
        for crafting, examples in made:
            crafted(crafting, images, examples)
    return torch.stack(rows)


def _examples(
    models: Mapping[str, nn.Module],
    crafting: AdversarialSet,
    images: Tensor,
    labels: Tensor,
    draws: AttackNoise,
    attacks: Mapping[str, Attack],
    kept: dict[AdversarialSet, Tensor],
) -> Tensor:
    """Return adversarial examples; those of an attack with a loss of its own are ``kept`` for the other gradient."""
    own_loss = attacks[crafting.attack].own_loss
    alike = replace(crafting, gradient="exact") if own_loss else crafting
    if alike in kept:
        return kept[alike]
    examples = craft_by_name(
        crafting.attack,
        models[crafting.source],
        images,
        labels,
        strength=crafting.strength,
        draws=draws,
        gradient=crafting.gradient,
        policy=crafting.label,
        attacks=attacks,
    )
    if own_loss:
        kept[alike] = examples
    return examples
