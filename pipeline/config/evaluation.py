"""The sections that determine the results: attacks, evaluation, analysis, and adversaries who only query."""

from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    Field,
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
    Seed,
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

    ``arguments`` are its own keywords, without the radius, which is ``attack.eps``.
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
    """Epsilon and alpha, in pixel units, for training and evaluation; the rest is for evaluation.

    ``alpha`` is the random step of RAND+FGSM; ``steps`` are those of I-FGSM and MI-FGSM; ``pgd_steps`` and ``restarts``
    (random starts) are those of PGD and C&W. ``custom`` has attacks from elsewhere, by the names that
    ``evaluation.attacks`` and the results use.
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

    The report shows the signed gradients of ``illustrated`` models. ``diagnosed`` models are probed for masked
    gradients, with FGSM at each epsilon of ``sweep``, in pixel units.

    ``label`` says which label the paper's attacks use. For each k in ``top``, an example is right if the true class is
    among the first k. If the test set is larger than ``sample``, that many random images are attacked; clean images and
    each model's own FGSM are still measured on all (table 5). The ``battery`` adds sources and attacks.
    """

    holdout: ModelName
    targets: list[str]
    attacks: dict[str, list[str]]
    gradients: Annotated[list[Gradient], Field(min_length=1)]
    illustrated: list[str]
    diagnosed: list[str]
    sweep: list[Pixels]
    seed: Seed = 0
    label: Annotated[EvaluationLabel, BeforeValidator(word)] = "true"
    top: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default_factory=lambda: [1])
    sample: PositiveInt | None = None
    battery: BatteryParams | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        return {key: dumped[key] for key in dumped if key != "battery" or self.battery}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, values in (("gradients", self.gradients), ("top", self.top)):
            if len(set(values)) < len(values):
                raise schema_error(key, "must list each once")
        if 1 not in self.top:
            raise schema_error("top", "must hold 1, by which masked gradients are judged: put it beside the others")
        return self

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

    The points are test images on which the source's FGSM fools the model and its own does not. ``model`` may be a
    snapshot.
    """

    model: str
    source: str
    points: PositiveInt


class AnalysisParams(Section):
    """Models whose gradients are measured, on ``examples`` test images against float64, and a ``plane`` of the loss.

    Without a ``plane`` the loss is not mapped, and it is not counted whose FGSM samples fool the models. ``tables`` are
    your own for the report, each made by a package.module:function from the error matrix. ``baseline`` is the target
    that the report's study compares the others with.
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
    """The adversary who queries labels: it trains a substitute, beginning with some images of its own.

    In each of ``rounds`` the substitute is trained anew for ``epochs``. Copies of its images, moved by ``step`` along
    its Jacobian, are then queried and added, up to ``limit`` images in all. ``sweep`` are epsilons to attack with
    besides ``attack.eps``.
    """

    architecture: str
    images: PositiveInt
    rounds: PositiveInt
    epochs: PositiveInt
    step: Pixels
    limit: PositiveInt
    seed: Seed
    sweep: Sweep = Field(default_factory=list)


class EstimationParams(Section):
    """The adversary who queries confidences on some examples: differences of ``delta`` over ``groups`` of pixels."""

    examples: PositiveInt
    delta: Annotated[Pixels, Field(gt=0, le=1)]
    groups: list[PositiveInt]
    seed: Seed


class ForestParams(Section):
    """A random forest, and the models whose FGSM examples are tried on it, at ``attack.eps`` and each of ``sweep``."""

    trees: PositiveInt
    sources: list[str]
    seed: Annotated[int, Field(ge=0, lt=1 << 32)]  # as scikit-learn takes it
    sweep: Sweep = Field(default_factory=list)


class BlackboxParams(Section):
    """Adversaries who may query ``targets``, tried on ``examples`` test images; and optionally a random forest.

    ``seed`` draws the adversary's own images, and then the test images. A forest is tried on all test images and holds
    all training images in memory.
    """

    targets: list[str]
    examples: PositiveInt
    seed: Seed = 0
    substitute: SubstituteParams
    estimation: EstimationParams
    forest: ForestParams | None = None

    @property
    def named(self) -> list[str]:
        """Every model that takes part, once."""
        return list(dict.fromkeys([*self.targets, *(self.forest.sources if self.forest else [])]))
