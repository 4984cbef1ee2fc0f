"""The section ``training``: how the weights of every model are trained, and what one model overrides of it."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer

from gradshard.pipeline.config.section import Section, without_usual
from gradshard.pipeline.types import BatchNorm, Compilation, OptimizerName, Precision


class AugmentationParams(Section):
    """Random crops of images padded by ``padding`` pixels, and mirror images if ``flip``."""

    padding: NonNegativeInt = 0
    flip: bool = False


class TrainingParams(Section):
    """Training of every model, robust ones at the learning rate of ``adversarial``.

    The learning rate is multiplied by ``decay`` after every ``decay_epochs`` epochs. ``compile`` says whether torch
    compiles the model; ``batch_norm`` whose statistics batch normalisation takes when several processes train.
    ``average`` is the decay of a moving average of the weights, which is published in their place.
    """

    batch: PositiveInt
    learning_rate: PositiveFloat
    precision: Precision
    optimizer: OptimizerName = "adam"
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    decay_epochs: PositiveInt = 1
    augment: AugmentationParams = Field(default_factory=AugmentationParams)
    compilation: Compilation = Field(alias="compile", default="auto")
    batch_norm: BatchNorm = "per_rank"
    average: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_usual(dump(self), {"average": None})

    def overridden_by(self, overrides: "TrainingOverrides") -> "TrainingParams":
        """Return these settings with what a model says otherwise."""
        return self.model_copy(update={name: getattr(overrides, name) for name in overrides.model_fields_set})


class TrainingOverrides(TrainingParams):
    """Keys of ``training`` that one model says otherwise; of the others the values here mean nothing."""

    batch: PositiveInt = 1
    learning_rate: PositiveFloat = 1.0
    precision: Precision = "auto"

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}
