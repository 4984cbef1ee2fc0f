"""Errors in a parameter file, each explained in one sentence that names the key."""

import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails, PydanticCustomError

# The most mistakes that are explained, the others being only counted; and the most characters shown of a value.
_TOLD, _SHOWN = 5, 80
_OF_ONE_SECTION = re.compile(r" \(there are [^()]*\)$")
# Replacements for pydantic's own messages, by the type of the error; braces are filled in from the error's context.
_WORDS = {
    "byte_size": "must be a size such as 4 GiB",
    "byte_size_unit": "must be a size such as 4 GiB",
    "dict_type": "must be a section of keys and values",
    "invalid_key": "is a key that is no text: put it in quotes",
    "model_type": "must be a section of keys and values",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}

# What keys are called elsewhere, also in Python, where no similarity of the letters leads to them.
_SYNONYMS = {"epsilon": "eps", "lr": "learning_rate", "iterations": "steps"}


def schema_error(key: str, message: str) -> PydanticCustomError:
    """Return the error that a section's own check raises about its ``key``."""
    return PydanticCustomError("gradshard", "{message}", {"message": message, "key": key})


def explain_all(errors: Sequence[ErrorDetails], schema: type[BaseModel], content: object) -> str:
    """Explain all mistakes that were found in a file of this schema, in one sentence, the first few in full.

    Args:
        errors: what pydantic found.
        schema: of the file.
        content: what the file holds.
    """
    places: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for error in errors:
        places.setdefault(tuple(_keys(error, content)), []).append(error)
    told = [_explained(keys, found, schema) for keys, found in places.items()]
    more = [f"and {len(told) - _TOLD} more"] if len(told) > _TOLD else []
    return "; ".join([*_each_list_once(told[:_TOLD]), *more])


def explain(error: ErrorDetails, schema: type[BaseModel], content: object) -> str:
    """Explain one error that was found in a file of this schema to the author of the file."""
    return _explained(_keys(error, content), [error], schema)


def _explained(keys: Sequence[str], errors: Sequence[ErrorDetails], schema: type[BaseModel]) -> str:
    """Explain what is wrong at a key; several errors mean that the value has none of the types that it may have."""
    first = errors[0]
    named = ".".join(keys) or "the file"
    if first["type"] == "extra_forbidden":
        *section, word = keys
        return f"unknown key {named}{did_you_mean(word, _known_keys(section, schema))}"
    if first["type"] == "missing":
        return f"key {named} is missing"
    if first["type"] == "gradshard":
        return f"{named} {first['msg']}"
    kinds = list(dict.fromkeys(map(_wanted, errors)))
    wanted = " or ".join([kinds[0], *(kind.removeprefix("should be ") for kind in kinds[1:])])
    shown = repr(first["input"])
    return f"{named} {wanted}, but is {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}…'}"


def _wanted(error: ErrorDetails) -> str:
    if (words := _WORDS.get(error["type"])) is not None:
        return words.format(**error.get("ctx", {}))
    return error["msg"].removeprefix("Input ").removeprefix("Value error, ")


def _keys(error: ErrorDetails, content: object) -> list[str]:
    """Return the keys that lead to an error, without the names of the types that pydantic tried on the way."""
    keys, value = [], content
    for part, after in pairwise((*error["loc"], None)):
        if part == "[key]":
            continue
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        found = {str(key): its for key, its in inner.items()} if isinstance(inner, Mapping) else {}
        if str(part) in found:
            value = found[str(part)]
        elif after != "[key]" and (error["type"] != "missing" or after is not None):
            continue
        keys.append(str(part))
    return [*keys, str(error["ctx"]["key"])] if error["type"] == "gradshard" and "key" in error["ctx"] else keys


def _each_list_once(told: Sequence[str]) -> list[str]:
    """Leave out a list of all keys if an earlier sentence about an unknown key has the same one."""
    seen: set[str] = set()
    kept = []
    for sentence in told:
        listed = _OF_ONE_SECTION.search(sentence)
        kept.append(sentence[: listed.start()] if listed and listed[0] in seen else sentence)
        seen.update([listed[0]] if listed else [])
    return kept


def _known_keys(keys: list[str], schema: type[BaseModel]) -> list[str]:
    """Return the keys of the section at a path."""
    section: object = schema
    for key in keys:
        fields = getattr(section, "model_fields", {})
        by_alias = {field.alias or name: field for name, field in fields.items()}
        # A section has fields; a dictionary of sections has names, each with the dictionary's value type.
        section = _section(by_alias[key].annotation if key in by_alias else get_args(section)[-1])
    fields = getattr(section, "model_fields", {})
    return [getattr(field, "alias", None) or name for name, field in fields.items()]


def _section(annotation: object) -> object:
    """Return the section among the types that a key may have, such as a section or nothing."""
    kinds = [kind for kind in get_args(annotation) if hasattr(kind, "model_fields")]
    is_union = get_origin(annotation) in (Union, UnionType)
    return kinds[0] if is_union and kinds else annotation


def did_you_mean(word: str, known: list[str]) -> str:
    """Return the end of a sentence about an unknown word: the word that was probably meant, or all known ones."""
    synonym = _SYNONYMS.get(word)
    close = [synonym] if synonym in known else difflib.get_close_matches(word, known, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (there are {', '.join(known)})" if known else ""
