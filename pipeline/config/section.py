"""The base of every section of the parameters: unknown keys are refused, nothing is converted, nothing changes."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
