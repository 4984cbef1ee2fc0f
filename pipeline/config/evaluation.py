"""The sections that results follow from: attacks, evaluation, analysis, and adversaries who only ask."""

from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gradshard.pipeline.attacks.registry import ATTACKS
from gradshard.pipeline.config.battery import BatteryParams
from gradshard.pipeline.config.errors import schema_error
from gradshard.pipeline.config.fields import (
    Arguments,
    ModelName,
    Pixels,
    PlainName,
    Reference,
    word,
)
from gradshard.pipeline.config.section import Section, without_usual
from gradshard.pipeline.types import (
    CLEAN,
    WORST_CASE,
    EvaluationLabel,
    Gradient,
)

# Epsilons besides that of the attack.
Sweep = list[Annotated[Pixels, Field(gt=0, le=1)]]


class CustomAttack(Section):
    """An attack from elsewhere: a library's, such as torchattacks:DIFGSM, or your own package.module:function.

    ``arguments`` are its own keywords, besides the radius, which it is given ``attack.eps`` for.
    """

    call: Reference
    arguments: Arguments = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.arguments:
            if name in ("eps", "epsilon", "epsilons"):
                raise schema_error(f"arguments.{name}", "is given by attack.eps, the same for all attacks: remove it")
        return self


class AttackParams(Section):
    """Epsilon, in pixel units, for training and evaluation; the rest is for evaluation.

    RAND+FGSM's alpha; the steps of I-FGSM and MI-FGSM; the steps and random starts of PGD and C&W; and attacks from
    elsewhere, by the names that ``evaluation.attacks`` and the results call them.
    """

    epsilon: Pixels = Field(alias="eps")
    alpha: Pixels
    steps: PositiveInt
    pgd_steps: PositiveInt
    restarts: PositiveInt
    custom: dict[PlainName, CustomAttack] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        return {key: dumped[key] for key in dumped if key != "custom" or self.custom}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.custom:
            if name in ATTACKS or name in (CLEAN, WORST_CASE):
                raise schema_error(f"custom.{name}", "has the name of another attack: give it a name of its own")
        if not 0 < self.epsilon <= 1:
            raise schema_error("eps", f"must be above 0 and at most 1 (pixels lie in [0, 1]), but is {self.epsilon}")
        if not 0 < self.alpha < self.epsilon:
            raise schema_error("alpha", f"must be above 0 and below eps ({self.epsilon}), but is {self.alpha}")
        return self


class EvaluationParams(Section):
    """Targets, attacks and sources; ``holdout`` is the static model that no training saw.

    ``illustrated`` models get their signed gradients shown in the report. ``diagnosed`` models are probed for a masked
    gradient, FGSM's epsilon running through ``sweep``, in pixel units.

    ``label`` is whose label the paper's attacks are about, ``top`` in how many of the first classes the true one may
    be. Of a test set larger than ``sample``, so many random images are attacked; clean images and each model's own FGSM
    are still measured on all (table 5). The ``battery`` adds sources and attacks.
    """

    holdout: ModelName
    targets: list[str]
    attacks: dict[str, list[str]]
    gradients: Annotated[list[Gradient], Field(min_length=1)]
    illustrated: list[str]
    diagnosed: list[str]
    sweep: list[Pixels]
    seed: NonNegativeInt = 0
    label: Annotated[EvaluationLabel, BeforeValidator(word)] = "true"
    top: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default_factory=lambda: [1])
    sample: PositiveInt | None = None
    battery: BatteryParams | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        return {key: dumped[key] for key in dumped if key != "battery" or self.battery}

    @property
    def crafters(self) -> dict[str, list[str]]:
        """The models that craft each attack, those of the battery too."""
        found = {attack: list(sources) for attack, sources in self.attacks.items()}
        if self.battery:
            for attacks, sources in ((self.battery.attacks, self.battery.sources), (self.battery.own, self.targets)):
                for attack in attacks:
                    found[attack] = list(dict.fromkeys([*found.get(attack, []), *sources]))
        return found

    @property
    def named(self) -> list[str]:
        """Every model that takes part, once."""
        sources = [source for attackers in self.crafters.values() for source in attackers]
        return list(dict.fromkeys([*self.targets, *sources, *self.illustrated, *self.diagnosed, self.holdout]))


class PlaneParams(Section):
    """Figures 2 and 3: the loss of ``model`` over its own signed gradient and that of ``source``, at some points.

    These are test images that FGSM of the source fools the model on and its own does not. ``model`` may be a snapshot.
    """

    model: str
    source: str
    points: PositiveInt


class AnalysisParams(Section):
    """Models whose gradients are measured, on how many test examples against float64, and where the loss is mapped.

    Without a ``plane`` it is nowhere, and who fools the models is not counted. ``tables`` are your own for the report,
    each made by a package.module:function from the error matrix. ``baseline`` is the target that the report's study
    compares the others with.
    """

    models: list[str]
    examples: PositiveInt
    plane: PlaneParams | None
    tables: list[Reference] = Field(default_factory=list)
    baseline: str | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_usual(dump(self), {"baseline": None})

    @property
    def named(self) -> list[str]:
        """Every model that takes part, once."""
        plane = [] if self.plane is None else [self.plane.model, self.plane.source]
        return list(dict.fromkeys([*self.models, *plane]))


class SubstituteParams(Section):
    """The adversary who asks for labels: a substitute of an architecture, from so many images of its own.

    In each of ``rounds`` it is trained anew for ``epochs``, and its images are moved by ``step`` along its Jacobian
    and asked for too, up to ``limit`` images in all. ``sweep`` are epsilons to attack with besides ``attack.eps``.
    """

    architecture: str
    images: PositiveInt
    rounds: PositiveInt
    epochs: PositiveInt
    step: Pixels
    limit: PositiveInt
    seed: NonNegativeInt
    sweep: Sweep = Field(default_factory=list)


class EstimationParams(Section):
    """The adversary who asks for confidences: differences of ``delta`` over groups of pixels, on some examples."""

    examples: PositiveInt
    delta: Annotated[Pixels, Field(gt=0, le=1)]
    groups: list[PositiveInt]
    seed: NonNegativeInt


class ForestParams(Section):
    """A random forest, and whose examples are tried on it: FGSM with ``attack.eps`` and each epsilon of ``sweep``."""

    trees: PositiveInt
    sources: list[str]
    seed: NonNegativeInt
    sweep: Sweep = Field(default_factory=list)


class BlackboxParams(Section):
    """Adversaries who may ask ``targets``, tried on ``examples`` test images; and a random forest, if wanted.

    ``seed`` draws these images, and before them the adversary's own. A forest is tried on all test images and holds all
    training images in memory.
    """

    targets: list[str]
    examples: PositiveInt
    seed: NonNegativeInt = 0
    substitute: SubstituteParams
    estimation: EstimationParams
    forest: ForestParams | None = None

    @property
    def named(self) -> list[str]:
        """Every model that takes part, once."""
        return list(dict.fromkeys([*self.targets, *(self.forest.sources if self.forest else [])]))
