"""Settings of training methods: fields that robust models and static ones share, and checks of them."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from gradshard.pipeline.config.errors import schema_error
from gradshard.pipeline.config.section import Section
from gradshard.pipeline.training.methods.registry import DEFAULT_METHOD, METHODS
from gradshard.pipeline.types import MethodName

METHOD_SETTINGS = tuple(dict.fromkeys(name for entry in METHODS.values() for name in entry.settings))


class MethodSettings(Section):
    """A method of training (none: on clean images alone), and settings, each of which only some methods have."""

    method: MethodName | None = None
    steps: PositiveInt | None = None
    step_size: PositiveFloat | None = None
    noise: Annotated[float, Field(ge=0)] | None = None
    replays: PositiveInt | None = None
    beta: PositiveFloat | None = None
    reset_epochs: PositiveInt | None = None
    prior_weight: Annotated[float, Field(ge=0)] | None = None
    prior_momentum: Annotated[float, Field(ge=0, lt=1)] | None = None

    @property
    def settings(self) -> dict[str, float]:
        """The given settings of the method, by name."""
        return {name: value for name in METHOD_SETTINGS if (value := getattr(self, name)) is not None}

    @property
    def replayed(self) -> int:
        """The number of consecutive steps that each batch is trained on."""
        usual = METHODS[self.method].settings.get("replays") if self.method else None
        return int(self.replays or usual or 1)


def check_settings(key: str, model: MethodSettings, *, epochs: int) -> None:
    """Check that the settings are those of the method, and that they fit the number of epochs.

    Raises:
        PydanticCustomError: one of these does not hold; the error names the key.
    """
    own = METHODS[model.method].settings if model.method else {}
    for name in model.settings:
        if name not in own:
            takers = ", ".join(m for m, other in METHODS.items() if name in other.settings and m != DEFAULT_METHOD)
            instead = f"not for {model.method}: remove it" if model.method else "and none is named: name one in method"
            raise schema_error(f"{key}.{name}", f"is for the method {takers}, {instead}")
    _check_reach(key, model)
    if epochs % model.replayed:
        raise schema_error(
            f"{key}.epochs",
            f"is {epochs}, which {model.replayed} replays of every batch do not divide: an epoch counts as many "
            "steps as it has batches, so choose a multiple, or other replays",
        )


def _check_reach(key: str, model: MethodSettings) -> None:
    """Refuse steps too small to get from an image to the surface of its ball."""
    usual = METHODS[model.method].settings.get("steps") if model.method else None
    if model.step_size is not None and usual is not None:
        steps = model.steps or usual
        if steps * model.step_size < 1:
            raise schema_error(
                f"{key}.step_size",
                f"is {model.step_size:g} times eps, by which {steps} steps never reach eps: a step of 2/255 at "
                "eps 8/255 is written 0.25",
            )
