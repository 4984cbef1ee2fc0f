"""Names of models and stores, which serve as keys in YAML, levels of DVC's parameters, and file names."""

import re
from collections.abc import Iterable

from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML

from gradshard.pipeline.types import ANY_SOURCE, OWN, SELF

_LONGEST = 100
# Names that Windows reserves, with any ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def check_name(name: object) -> object:
    """Check a name from the parameters; its characters are checked afterwards.

    Raises:
        PydanticCustomError: DVC, YAML or a file system would take it for something else.
    """
    if (problem := _problem(name)) is not None:
        raise PydanticCustomError("gradshard", "{message}", {"message": problem})
    return name


def same_file(names: Iterable[str]) -> tuple[str, str] | None:
    """Find two names that are the same file on a disk that ignores case, if there are any."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            return other, name
    return None


def _problem(name: object) -> str | None:
    if isinstance(name, list | dict):
        return "must be one name, not a list or a section"
    if not isinstance(name, str) or _bent(name):
        return "is a name that YAML reads as a number, a date or another word: choose one that begins with a letter"
    if "." in name:
        return f"has a dot in its name, which DVC takes for a level of the parameters: write {name.replace('.', '_')}"
    if _DEVICES.fullmatch(name):
        return "is a name that Windows keeps for a device: choose another"
    if name in (SELF, OWN, ANY_SOURCE):
        return "is a word that results use for something else: choose another name"
    if len(name) > _LONGEST:
        return f"is a name of {len(name)} characters, too long for a file: choose one of at most {_LONGEST}"
    return None


def _bent(name: str) -> bool:
    """Tell whether an unquoted name is not text in YAML 1.2, or in YAML 1.1, which many tools use."""
    if not re.fullmatch(r"[\w.+-]*", name):
        return False  # other characters are refused elsewhere
    for version in ((1, 2), (1, 1)):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version
        if not isinstance(yaml.load(name), str):
            return True
    return False
