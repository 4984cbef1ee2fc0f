"""Errors in a parameter file, each said in one sentence that names the key."""

import difflib
from collections.abc import Sequence
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails, PydanticCustomError


def schema_error(key: str, message: str) -> PydanticCustomError:
    """An error of a check of our own, to be raised within a section whose ``key`` is wrong."""
    return PydanticCustomError("gradshard", "{message}", {"message": message, "key": key})


# More mistakes than these are counted only.
_TOLD = 5


def explain_all(errors: Sequence[ErrorDetails], schema: type[BaseModel]) -> str:
    """Explain all mistakes that were found in a file of this schema, in one sentence, the first few in full."""
    told = list(dict.fromkeys(explain(error, schema) for error in errors))
    more = [f"and {len(told) - _TOLD} more"] if len(told) > _TOLD else []
    return "; ".join([*told[:_TOLD], *more])


def explain(error: ErrorDetails, schema: type[BaseModel]) -> str:
    """Explain an error that was found in a file of this schema to whoever wrote the file."""
    context = error.get("ctx", {})
    keys = [str(part) for part in error["loc"] if part != "[key]"]
    if "key" in context and error["type"] == "gradshard":
        keys.append(str(context["key"]))
    key = ".".join(keys) or "the file"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}{did_you_mean(keys[-1], _known_keys(keys[:-1], schema))}"
    if error["type"] == "missing":
        return f"key {key} is missing"
    if error["type"] == "gradshard":
        return f"{key} {error['msg']}"
    message = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{key} {message}, but is {error['input']!r}"


def _known_keys(keys: list[str], schema: type[BaseModel]) -> list[str]:
    """The keys of the section at a path."""
    section: object = schema
    for key in keys:
        field = getattr(section, "model_fields", {}).get(key)
        # A section has fields; a dictionary of sections has names, each with the dictionary's value type.
        section = field.annotation if field is not None else get_args(section)[-1]
    fields = getattr(section, "model_fields", {})
    return [getattr(field, "alias", None) or name for name, field in fields.items()]


def did_you_mean(word: str, known: list[str]) -> str:
    """The end of a sentence about an unknown word: the word that was meant, or all that there are."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (there are {', '.join(known)})" if known else ""
