"""Values that keys of the parameters share: pixels, names, and references to code."""

import re
from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from gradshard.pipeline.config.names import check_name
from gradshard.pipeline.plugins import is_reference
from gradshard.pipeline.types import LabelPolicy, StoreLabel

# Results keep seeds as signed 64-bit integers.
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]


def _fraction(value: object) -> object:
    """Read ``16/256`` as a number."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            return value
    return value


def word(value: object) -> object:
    """Read YAML's ``true``, which is not text, as the word ``true``."""
    return "true" if value is True else value


def _plain_name(value: str) -> str:
    # DVC does not allow dots in keys.
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", value):
        raise ValueError("must be a name of letters, digits, - and _")
    return value


def _folder_name(value: str) -> str:
    if not value or value.startswith("/"):
        raise ValueError("must not be empty or begin with /")
    return value


def _model_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", value):
        raise ValueError("must be of letters, digits, - and _, and begin with a letter or a digit")
    return value


def _reference(value: str) -> str:
    if not is_reference(value):
        raise ValueError("must have the form package.module:function")
    return value


def _hub_name(value: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", value):
        raise ValueError("must be a name on the hub, OWNER/NAME or OWNER/NAME@REVISION")
    return value


def _two_columns(value: list[str]) -> list[str]:
    if len(value) != 2:
        raise ValueError("must name two columns, that of the images and that of the labels")
    return value


Pixels = Annotated[float, BeforeValidator(_fraction)]
StoredFor = Annotated[StoreLabel, BeforeValidator(word)]
Label = Annotated[LabelPolicy, BeforeValidator(word)]
FolderName = Annotated[str, AfterValidator(_folder_name)]
ModelName = Annotated[str, BeforeValidator(check_name), AfterValidator(_model_name)]
PlainName = Annotated[str, AfterValidator(_plain_name)]
# Keywords for a user's function.
Arguments = dict[str, Annotated[JsonValue, BeforeValidator(_fraction)]]
Reference = Annotated[str, AfterValidator(_reference)]
HubName = Annotated[str, AfterValidator(_hub_name)]
Columns = Annotated[list[str], AfterValidator(_two_columns)]
