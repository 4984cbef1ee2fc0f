"""Examination of one model, whoever trained it: its own attacks, transferred attacks, and flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from gradshard.pipeline.attacks.crafting import attacks_named
from gradshard.pipeline.attacks.registry import ATTACKS, Attack, AttackConfig, attack_title
from gradshard.pipeline.evaluation.error_matrix import (
    AdversarialSet,
    Case,
    block_draws,
    evaluate_block,
    plan_cases,
    plan_craftings,
)
from gradshard.pipeline.evaluation.gradient_masking import Flag, masking_flags
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.probing import probe
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.gradients.perturb import leaves_ball, perturb
from gradshard.pipeline.gradients.watching import Watched
from gradshard.pipeline.types import CLEAN, SELF, Gradient

# Images that share one draw of the attacks' random part and are one step of progress.
EXAMINED_TOGETHER = 100
NOISE = "noise"
_NOISE_ATTACK = Attack("Random signs", f"{__name__}:random_step", {"signs": "signs"}, own_loss=True)
QUICK_ATTACKS = ("fgsm", "rand_fgsm", "ifgsm", "pgd")
QUICK_TRANSFERRED: tuple[str, ...] = ("fgsm", "ifgsm")
TRANSFERRED: tuple[str, ...] = ("fgsm", "rand_fgsm", "ifgsm", "mifgsm", "pgd")
# Shares of epsilon; and epsilons so large that a working attack leaves any model hardly any right image.
_SHARES, _LARGE = (0.25, 0.5, 0.75, 1.5, 2.0, 4.0), (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class ExaminationPlan:
    """Plan of an examination; among names of sources, ``self`` is the model itself.

    ``attacks`` are crafted by the model's own gradient, ``transferred`` ones by each of ``sources``; ``arguments`` are
    the keywords of attacks from elsewhere, by the attack's name.
    """

    strength: AttackConfig
    attacks: tuple[str, ...]
    transferred: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    gradient: Gradient = "exact"
    seed: int = 0
    arguments: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def table(self) -> Mapping[str, Attack]:
        """Return every attack by name, those from elsewhere and random signs among them.

        Raises:
            GradshardError: a name is not that of an attack, or arguments are for an attack that is not named.
        """
        return {NOISE: _NOISE_ATTACK, **attacks_named((*self.attacks, *self.transferred), self.arguments)}

    @property
    def foreign(self) -> list[str]:
        """Name the attacks from elsewhere."""
        return [name for name in dict.fromkeys((*self.attacks, *self.transferred)) if name not in ATTACKS]

    @property
    def cases(self) -> list[Case]:
        """Return what is measured: clean images first, then random signs, then each attack, own before transferred."""
        crafters: dict[str, list[str]] = {NOISE: [SELF]}
        for attack in dict.fromkeys((*self.attacks, *self.transferred)):
            own = [SELF] if attack in self.attacks else []
            crafters[attack] = own + (list(self.sources) if attack in self.transferred else [])
        return plan_cases(plan_craftings(crafters, [self.gradient], self.strength, attacks=self.table), [SELF])

    @property
    def epsilons(self) -> list[float]:
        """The epsilons of FGSM's sweep, from 0 to 1: some around that of the attacks, and some large ones."""
        around = (round(share * self.strength.epsilon, 12) for share in _SHARES)
        return sorted({0.0, self.strength.epsilon, *_LARGE, *(value for value in around if value <= 1)})


@dataclass(frozen=True)
class Reach:
    """Bounds of a set of adversarial examples: the largest change of a pixel, and the least and the largest pixel.

    ``violations`` counts examples that leave the ball or [0, 1], rounding aside.
    """

    furthest: float
    low: float
    high: float
    violations: int

    def __add__(self, other: "Reach") -> "Reach":
        return Reach(
            max(self.furthest, other.furthest),
            min(self.low, other.low),
            max(self.high, other.high),
            self.violations + other.violations,
        )


@dataclass(frozen=True)
class BlockFindings:
    """Measurements on some images: per case which examples are right, bool (cases, n), and the reach of its examples.

    ``undefined`` counts, per model, the rows whose gradient was NaN or infinite when an attack asked for it.
    """

    correct: npt.NDArray[np.bool_]
    reaches: tuple[Reach | None, ...]
    probe: GradientProbe
    undefined: Mapping[str, int]

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "correct": self.correct.astype(int).tolist(),
            "reaches": [reach and vars(reach) for reach in self.reaches],
            "probe": self.probe.record(),
            "undefined": dict(self.undefined),
        }

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> "BlockFindings":
        """Restore findings from a record."""
        return cls(
            correct=np.array(record["correct"], dtype=np.bool_),
            reaches=tuple(reach and Reach(**reach) for reach in record["reaches"]),
            probe=GradientProbe.restore(record["probe"]),
            undefined=record["undefined"],
        )

    def __add__(self, other: "BlockFindings") -> "BlockFindings":
        return BlockFindings(
            correct=np.hstack([self.correct, other.correct]),
            reaches=tuple(a + b if a and b else None for a, b in zip(self.reaches, other.reaches, strict=True)),
            probe=self.probe + other.probe,
            undefined={name: count + other.undefined[name] for name, count in self.undefined.items()},
        )


@dataclass(frozen=True)
class AttackResult:
    """The model's error under one attack; ``source`` is who crafted it, or ``self``, and empty for clean images."""

    attack: str
    source: str
    error: ErrorRate
    reach: Reach | None = None


@dataclass(frozen=True)
class Examination:
    """Findings of an examination.

    ``worst_case`` counts an example as right only if it is right on the clean image and under every attack.
    ``withheld`` has the models whose gradient was NaN or infinite, and for how many rows: there the attack did nothing,
    so what these models crafted by it is left out of ``worst_case`` and ``results``.
    """

    plan: ExaminationPlan
    results: tuple[AttackResult, ...]
    worst_case: ErrorRate
    probe: GradientProbe
    flags: tuple[Flag, ...]
    withheld: Mapping[str, int] = field(default_factory=dict)

    @property
    def masked(self) -> bool:
        """Tell whether a flag is raised; if so, the model's own attacks do not measure its robustness."""
        return bool(self.flags)

    @property
    def verdict(self) -> str:
        """The verdict of the flags, in one sentence."""
        if not self.flags:
            return "no flag: its own attacks can be believed, which does not make it robust"
        count = f"{len(self.flags)} flag{'s' if len(self.flags) > 1 else ''}"
        return f"{count}: its gradient cannot be trusted, and its own attacks are no measure of its robustness"

    def __str__(self) -> str:
        """Write the errors in a small table, then each flag, then the verdict."""
        rows = [(_called(result), result.error) for result in self.results]
        rows.append(("worst case", self.worst_case))
        width = max(len(name) for name, _ in rows)
        errors = [f"{name:<{width}}  {_interval(error)}" for name, error in rows]
        left_out = [f"left out, for a gradient that was no number: what {name} crafted" for name in self.withheld]
        flags = [f"{flag.name}: {flag.says} ({flag.figures})" for flag in self.flags]
        return "\n".join([*errors, *left_out, *flags, self.verdict])

    def error(self, attack: str, source: str = SELF) -> ErrorRate:
        """Return the error under one attack, by default by the model's own gradient.

        Raises:
            KeyError: it was not measured.
        """
        found = {(result.attack, result.source): result.error for result in self.results}
        return found[attack, "" if attack == CLEAN else source]


def random_step(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, signs: Tensor) -> Tensor:
    """Move every pixel by epsilon up or down at random, without using the model."""
    del model, labels
    return perturb(images, signs, epsilon)


def examine_block(
    models: Mapping[str, nn.Module], images: Tensor, labels: Tensor, plan: ExaminationPlan, *, block: int
) -> BlockFindings:
    """Examine a model on some images.

    Args:
        models: the model, under the name ``self``, and the sources, in eval mode.
        images: float (n, C, H, W) in [0, 1], on the models' device.
        labels: int64 (n,).
        plan: what is measured.
        block: the number of these images' block of ``EXAMINED_TOGETHER``, which determines the random draws.
    """
    draws = block_draws(images.shape, plan.strength.restarts, seed=plan.seed, block=block, device=images.device)
    watched = {name: Watched(model) for name, model in models.items()}
    reaches: dict[AdversarialSet, Reach] = {}

    def measure(crafting: AdversarialSet, of: Tensor, examples: Tensor) -> None:
        found = _reach(of, examples, crafting.strength.epsilon)
        reaches[crafting] = reaches[crafting] + found if crafting in reaches else found

    cases = plan.cases
    ranks = evaluate_block(watched, cases, images, labels, draws=draws, attacks=plan.table, crafted=measure)
    return BlockFindings(
        correct=(ranks == 0).numpy(),
        reaches=tuple(None if case.crafting is None else reaches[case.crafting] for case in cases),
        probe=probe(
            models[SELF],
            models[plan.sources[0]] if plan.sources else models[SELF],
            images,
            labels,
            strength=plan.strength,
            epsilons=plan.epsilons,
            noise=draws.signs.to(images.dtype),
            gradient=plan.gradient,
        ),
        undefined={name: model.undefined for name, model in watched.items()},
    )


def conclude(plan: ExaminationPlan, blocks: Sequence[BlockFindings]) -> Examination:
    """Draw the conclusions from the measurements on all blocks of images, in their order."""
    found = reduce(add, blocks)
    withheld = {name: count for name, count in found.undefined.items() if count}
    kept = [
        (case, right, reach)
        for case, right, reach in zip(plan.cases, found.correct, found.reaches, strict=True)
        if case.crafting is None or case.crafting.attack == NOISE or case.crafting.source not in withheld
    ]
    results = tuple(
        AttackResult(
            attack=case.crafting.attack if case.crafting else CLEAN,
            source=case.crafting.source if case.crafting else "",
            error=_error(right),
            reach=reach,
        )
        for case, right, reach in kept
    )
    transferred = {r.source: r.error for r in results if r.attack == "fgsm" and r.source != SELF}
    outside = sum(reach.violations for reach in found.reaches if reach)
    measured = replace(found.probe, violations=max(found.probe.violations, outside))
    return Examination(
        plan=plan,
        results=results,
        worst_case=_error(np.all([right for _, right, _ in kept], axis=0)),
        probe=measured,
        flags=tuple(masking_flags(measured, transferred)),
        withheld=withheld,
    )


def title_of(attack: str) -> str:
    """Name an attack, or random signs, as tables do."""
    return _NOISE_ATTACK.title if attack == NOISE else attack_title(attack)


def _reach(images: Tensor, examples: Tensor, epsilon: float) -> Reach:
    return Reach(
        furthest=float((examples - images).abs().max()),
        low=float(examples.min()),
        high=float(examples.max()),
        violations=int(leaves_ball(examples, images, epsilon).sum()),
    )


def _called(result: AttackResult) -> str:
    name = title_of(result.attack)
    return name if result.source in ("", SELF) else f"{name} from {result.source}"


def _interval(error: ErrorRate) -> str:
    low, high = error.wilson
    return f"{error.rate:6.1%} ({low:.1%} to {high:.1%})"


def _error(correct: npt.NDArray[np.bool_]) -> ErrorRate:
    return ErrorRate(int((~correct).sum()), len(correct))
