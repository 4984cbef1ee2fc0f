"""The base of every section of the parameters: unknown keys are refused, nothing is converted, nothing changes."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def without_usual(dumped: Mapping[str, object], usual: Mapping[str, object]) -> dict[str, object]:
    """Return a dumped section without keys at their usual values, as it was before these keys existed."""
    return {key: value for key, value in dumped.items() if key not in usual or value != usual[key]}
