"""The section ``training``: how the weights of every model are trained, and what one model overrides of it."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer

from gradshard.pipeline.config.errors import schema_error
from gradshard.pipeline.config.section import Section, without_usual
from gradshard.pipeline.types import BatchNorm, Compilation, LearningRateSchedule, OptimizerName, Precision

# Keys that were added after the first version, with their defaults, at which they are not recorded.
_ASKED_FOR = {
    "momentum": 0.0,
    "nesterov": False,
    "rmsprop_decay": 0.9,
    "rmsprop_epsilon": 1.0,
    "learning_rate_schedule": "exponential",
    "milestones": [],
    "weight_decay": 0.0,
    "clip_norm": None,
    "label_smoothing": 0.0,
    "dropout": None,
    "auxiliary": None,
    "average": None,
}
# Per key, its usual value and the optimisers, or schedules, that take another value.
_OF_OPTIMIZERS = {
    "momentum": (0.0, ("sgd", "rmsprop")),
    "nesterov": (False, ("sgd",)),
    "rmsprop_decay": (0.9, ("rmsprop",)),
    "rmsprop_epsilon": (1.0, ("rmsprop",)),
}
_OF_SCHEDULES = {
    "decay": (1.0, ("exponential", "step")),
    "decay_epochs": (1, ("exponential",)),
    "milestones": ([], ("step",)),
}


class AugmentationParams(Section):
    """Random crops of images padded by ``padding`` pixels, and mirror images if ``flip``."""

    padding: NonNegativeInt = 0
    flip: bool = False


class TrainingParams(Section):
    """Training of every model; robust models use the learning rate of ``adversarial``.

    ``learning_rate_schedule`` ``exponential`` multiplies the learning rate by ``decay`` after every ``decay_epochs``
    epochs, ``step`` after each of the epochs in ``milestones``; ``cosine`` lets it fall along half a cosine.
    ``momentum`` is that of sgd (Nesterov's if ``nesterov``) or rmsprop, and ``rmsprop_decay`` the decay of rmsprop's
    mean squares. Gradients are clipped to ``clip_norm``; then ``weight_decay`` times the weights is added to them.
    ``label_smoothing`` is the share of each label that is spread over all classes. ``dropout`` is the rate of the
    model's dropout layers; null leaves them as they are. ``auxiliary`` is the weight of the loss of the model's
    auxiliary classifier; null trains without it.

    ``compile`` says whether torch compiles the model; ``batch_norm`` whose statistics batch normalisation takes when
    several processes train. ``average`` is the decay of a moving average of the weights, which is published in their
    place.
    """

    batch: PositiveInt
    learning_rate: PositiveFloat
    precision: Precision
    optimizer: OptimizerName = "adam"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    rmsprop_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    rmsprop_epsilon: PositiveFloat = 1.0
    learning_rate_schedule: LearningRateSchedule = "exponential"
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    decay_epochs: PositiveInt = 1
    milestones: list[PositiveInt] = Field(default_factory=list)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: PositiveFloat | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    auxiliary: PositiveFloat | None = None
    augment: AugmentationParams = Field(default_factory=AugmentationParams)
    compilation: Compilation = Field(alias="compile", default="auto")
    batch_norm: BatchNorm = "per_rank"
    average: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_usual(dump(self), _ASKED_FOR)

    def overridden_by(self, overrides: "TrainingOverrides") -> "TrainingParams":
        """Return these settings with a model's overrides applied."""
        return self.model_copy(update={name: getattr(overrides, name) for name in overrides.model_fields_set})


class TrainingOverrides(TrainingParams):
    """Keys of ``training`` that one model overrides; values of keys that were not given mean nothing."""

    batch: PositiveInt = 1
    learning_rate: PositiveFloat = 1.0
    precision: Precision = "auto"

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


def check_optimization(key: str, training: TrainingParams) -> None:
    """Check that the chosen optimiser and schedule use every setting that was given.

    Raises:
        PydanticCustomError: a setting is not used, or lacks another; the error names the key.
    """
    for chosen, settings in ((training.optimizer, _OF_OPTIMIZERS), (training.learning_rate_schedule, _OF_SCHEDULES)):
        for name, (usual, takers) in settings.items():
            value = getattr(training, name)
            if value != usual and chosen not in takers:
                raise schema_error(f"{key}.{name}", f"is {value}, which {chosen} does not take: set it to {usual}")
    if training.nesterov and not training.momentum:
        raise schema_error(f"{key}.nesterov", "is for a momentum above 0: give one, or set it to false")
    if training.auxiliary is not None and training.compilation == "on":
        raise schema_error(f"{key}.auxiliary", "is for a model that is not compiled: set it to null, or compile to off")
    if training.learning_rate_schedule == "step":
        if training.milestones != sorted(set(training.milestones)) or not training.milestones:
            raise schema_error(
                f"{key}.milestones",
                f"must be epochs in ascending order, but is {training.milestones}: give at least one",
            )
        if training.decay == 1:
            raise schema_error(
                f"{key}.decay", "is 1.0, so no milestone changes the learning rate: give a smaller factor"
            )
