"""Perturbations of a robust model's training: who crafts, by how much, and what the perturbed images weigh."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gradshard.pipeline.gradients.random_step import RandomStep, check_left
from gradshard.pipeline.types import (
    SELF,
    Combination,
    EpsilonDistribution,
    Gradient,
    LabelledImage,
    LabelPolicy,
    MethodName,
    Mode,
    Objective,
    ScheduleOrCombination,
    TrainingAttack,
)
from gradshard.storage.errors import GradshardError

_EPSILONS = 1


@dataclass(frozen=True)
class Adversary:
    """The sources, the model's own attack when it is the source, and the objective.

    ``method`` names the method of training, with its ``settings`` (``methods/registry.py``). Most of what follows is
    for ``ensemble``; other methods perturb every image themselves, about its true label, within the same ``epsilon``.

    ``attack`` is the model's own: FGSM; PGD (Madry et al. 2018), about the label of the clean image; or RAND+FGSM with
    ``alpha`` (section 4 reports that training on it did not help), about the label of the ``moved`` image, as in the
    authors' code, or of the ``clean`` one (``label_at``), as in evaluation and stores. ``directions`` gives, per store,
    which way to step along its signs; ``random_steps``, for each of its copies, the random step that comes before its
    signs, if any.

    ``schedule`` says that one source crafts for each batch, chosen by ``random`` or ``rotate``, as often as it weighs;
    or that all do, and how their losses are combined: ``all``, the ``top_k`` largest, or ``loss_weighted`` by a moving
    average with the decay ``ema_decay`` (``combination``). ``weights`` are positive; a source not named there weighs 1.

    ``objective`` is ``both``: ``clean_weight`` J(x) + (1 - ``clean_weight``) J(x_adv) over every image of a batch
    (section 5.1); or ``half``: every second image is replaced, and its loss weighs ``adversarial_weight`` against 1
    (Kurakin et al. 2017, equation 1), which suits models with batch normalisation.

    ``epsilon_law`` is ``fixed``, or ``truncated_normal``: every example's is drawn from N(0, epsilon / 2), truncated to
    [0, epsilon] (section 3.1, and Kurakin et al. 2017 for the deviation).
    """

    attack: TrainingAttack
    epsilon: float
    alpha: float
    clean_weight: float
    sources: tuple[str, ...]
    schedule: ScheduleOrCombination
    gradient: Gradient
    policy: LabelPolicy
    live_mode: Mode
    directions: Mapping[str, int]
    objective: Objective = "both"
    adversarial_weight: float = 1.0
    epsilon_law: EpsilonDistribution = "fixed"
    weights: Mapping[str, float] = field(default_factory=dict)
    top_k: int = 1
    ema_decay: float = 0.9
    method: MethodName = "ensemble"
    settings: Mapping[str, float] = field(default_factory=dict)
    random_steps: Mapping[str, tuple[RandomStep, ...]] = field(default_factory=dict)
    label_at: LabelledImage = "moved"

    def __post_init__(self) -> None:
        """Check that epsilon leaves something for the signs after each random step.

        Raises:
            GradshardError: for some example it does not.
        """
        for whose, alpha, instead in self._begun_at_random():
            check_left(self.epsilon, alpha, whose)
            if self.epsilon_law != "fixed":
                raise GradshardError(
                    f"{whose} steps {alpha:g} at random before it follows the signs, more than some of the epsilons "
                    f"that {self.epsilon_law} draws: choose epsilon_law fixed, or another {instead}"
                )

    @property
    def combination(self) -> Combination | None:
        """Tell how the losses under all sources are combined; none if one source crafts for each batch."""
        if len(self.sources) == 1 or self.schedule == "random" or self.schedule == "rotate":
            return None
        return self.schedule

    @property
    def stores(self) -> tuple[str, ...]:
        """List the sources that are stores, in their order."""
        return tuple(source for source in self.sources if source != SELF)

    def _begun_at_random(self) -> Iterator[tuple[str, float, str]]:
        """Yield each source that begins with a random step, the size of the step, and the parameter to change."""
        if SELF in self.sources and self.attack == "rand_fgsm":
            yield "the attack rand_fgsm", self.alpha, "attack"
        for name, steps in self.random_steps.items():
            yield f"source {name}", steps[0].alpha, "source"

    def epsilons(self, rows: int, *, seed: int, step: int) -> npt.NDArray[np.float32] | None:
        """Return epsilon for every row of a step's batch, float32 (rows,); none if it is the same for all."""
        if self.epsilon_law == "fixed":
            return None
        return truncated_normal(rows, self.epsilon, seed=seed, step=step)


def truncated_normal(rows: int, epsilon: float, *, seed: int, step: int) -> npt.NDArray[np.float32]:
    """Draw from N(0, epsilon / 2) truncated to [0, epsilon], by the inverse of its distribution; float32 (rows,)."""
    from scipy.special import ndtr, ndtri  # importing it takes a tenth of a second

    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step, _EPSILONS))))
    low, high = 0.5, float(ndtr(2.0))
    deviations = ndtri(low + (high - low) * draws.random(rows))
    drawn: npt.NDArray[np.float32] = np.clip(0.5 * epsilon * deviations, 0.0, epsilon).astype(np.float32)
    return drawn
