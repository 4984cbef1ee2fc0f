"""The sections about training: static models, robust models, streaming; stores are in ``signs``."""

from typing import Annotated, Self

from pydantic import (
    ByteSize,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gradshard.pipeline.config.errors import schema_error
from gradshard.pipeline.config.fields import Label, ModelName, Pixels, Seed
from gradshard.pipeline.config.methods import METHOD_SETTINGS, MethodSettings
from gradshard.pipeline.config.optimization import TrainingOverrides
from gradshard.pipeline.config.section import Section, without_usual
from gradshard.pipeline.types import (
    PRETRAINED,
    RANDOM,
    SELF,
    EpsilonDistribution,
    Gradient,
    LabelledImage,
    MethodName,
    Mode,
    Objective,
    Output,
    ScheduleOrCombination,
    TrainingAttack,
)


class StaticModel(MethodSettings):
    """A static model, trained on clean data for some epochs; with 0 epochs, its weights are taken as they are.

    With a ``method`` it is trained adversarially within ``eps``, as a robust model without stores may be, so that
    sources can differ in how they were trained. ``steps`` and the like are settings of methods.

    ``weights`` are the initial ones: ``random``, drawn by the seed; ``pretrained``, those that its library has; or a
    checkpoint's path, in which ``weights_key`` names the ones to take if there are several. ``output`` says what the
    forward pass returns; the logarithm of ``probabilities`` is taken. ``training`` overrides keys of the section of
    that name.
    """

    architecture: str
    epochs: NonNegativeInt
    seed: Seed = 0
    weights: Annotated[str, Field(min_length=1)] = RANDOM
    weights_key: Annotated[str, Field(min_length=1)] | None = None
    output: Output = "logits"
    training: TrainingOverrides = Field(default_factory=TrainingOverrides)
    epsilon: Annotated[Pixels, Field(gt=0, le=1)] | None = Field(alias="eps", default=None)

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        usual: dict[str, object] = {"weights_key": None, "output": "logits", "training": {}}
        unnamed = dict.fromkeys(("method", "epsilon", "eps", *METHOD_SETTINGS))
        return without_usual(dump(self), usual | unnamed)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.epochs and "weights" not in self.model_fields_set:
            raise schema_error(
                "epochs",
                "is 0, which takes weights as they are: name some in weights (pretrained, a checkpoint, or random for "
                "an untrained model), or give a number of epochs",
            )
        if self.weights_key is not None and self.weights in (RANDOM, PRETRAINED):
            raise schema_error("weights_key", f"is for a checkpoint, not for {self.weights} weights: remove it")
        if self.output != "logits" and self.weights == PRETRAINED:
            raise schema_error("output", "is probabilities, but pretrained models give logits: remove it")
        return self


class HeldBackParams(Section):
    """Training images that no robust model trains on: ``rows`` of them, drawn by ``seed``.

    Each model is tried on them after every ``every`` epochs and after the last: clean, under the signs of its stores,
    and under its own PGD of ``steps`` steps.
    """

    rows: PositiveInt
    every: PositiveInt = 1
    steps: PositiveInt = 10
    seed: Seed = 0


class AdversarialParams(Section):
    """Training of every robust model: the objective, the live gradient, and who crafts each batch.

    ``objective`` ``both`` weighs clean and perturbed images by ``clean_weight``; ``half`` replaces every second image,
    whose loss weighs ``adversarial_weight`` against 1. ``epsilon_law`` ``truncated_normal`` draws epsilon for every
    example. ``schedule`` ``random`` and ``rotate`` choose one source for every batch; ``all``, ``top_k`` and
    ``loss_weighted`` combine the losses under all of them: equally, the ``top_k`` largest of each example, or weighted
    by recent losses, a moving average that keeps ``ema_decay`` of itself at each step.
    """

    learning_rate: PositiveFloat
    clean_weight: Annotated[float, Field(ge=0, le=1)]
    gradient: Gradient
    label: Label
    live_mode: Mode
    schedule: ScheduleOrCombination
    objective: Objective = "both"
    adversarial_weight: PositiveFloat = 1.0
    epsilon_law: EpsilonDistribution = "fixed"
    top_k: PositiveInt = 1
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    held_back: HeldBackParams | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_usual(dump(self), {"top_k": 1, "ema_decay": 0.9, "held_back": None})


class RobustModel(MethodSettings):
    """A robust model; its sources are the model itself and any number of sign stores (none: adversarial training).

    ``method`` is the method of training; ``steps``, ``step_size``, ``noise``, ``replays``, ``beta``, ``reset_epochs``,
    ``prior_weight`` and ``prior_momentum`` are settings, each of which only some methods have (docs/baselines.md).

    For the default method alone: ``weights`` says how much more often than others a source crafts, or how much more its
    loss counts; ``self: false`` removes the model itself from the sources. ``attack`` is what the model itself perturbs
    with: fgsm; pgd, of ``steps`` steps; or rand_fgsm, which needs a live gradient for every batch and so allows no
    stores. Its label is that of the image after the random step or, with ``label_at: clean``, before it. ``schedule``,
    ``clean_weight`` and ``adversarial_weight`` override those of ``adversarial``.

    For all methods: ``gradient`` overrides that of ``adversarial``, if the method has no signs of its own; ``training``
    overrides keys of the section of that name, and its ``learning_rate`` that of ``adversarial``. The model begins with
    random weights, or with those of the static model ``init_from``, and is trained once with every seed of ``seeds``.
    """

    architecture: str
    sources: list[ModelName] = Field(default_factory=list)
    epochs: PositiveInt
    snapshots: list[PositiveInt] = Field(default_factory=list)
    init_from: ModelName | None = None
    attack: TrainingAttack = "fgsm"
    label_at: LabelledImage | None = None
    gradient: Gradient | None = None
    weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    live: bool = Field(alias="self", default=True)
    schedule: ScheduleOrCombination | None = None
    clean_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    adversarial_weight: PositiveFloat | None = None
    training: TrainingOverrides = Field(default_factory=TrainingOverrides)
    method: MethodName = "ensemble"

    @property
    def crafters(self) -> tuple[str, ...]:
        """The sources that perturb its images: the model itself, unless it is left out, and its stores."""
        return (*((SELF,) if self.live else ()), *self.sources)

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        usual: dict[str, object] = {
            "init_from": None,
            "label_at": None,
            "weights": {},
            "live": True,
            "schedule": None,
            "clean_weight": None,
            "adversarial_weight": None,
            "training": {},
            "method": "ensemble",
        }
        return without_usual(dump(self), usual | dict.fromkeys(METHOD_SETTINGS))


class StreamingParams(Section):
    """Memory and windows of training: images and stores that fit into ``memory`` are kept there; larger ones stream.

    They then pass through in windows of ``window`` rows, within which rows are shuffled; by default a window has as
    many rows as ``memory`` holds.
    """

    memory: ByteSize
    window: PositiveInt | None = None
