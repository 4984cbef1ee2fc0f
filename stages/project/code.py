"""The code that a stage's outputs depend on, as dvc.yaml lists it: for DVC, and for resumed training runs."""

import re
from pathlib import Path

from ruamel.yaml import YAML

import gradshard
from gradshard.storage.formats.digests import digest_of, file_sha256

_ROOT = Path(gradshard.__file__).parent
# DVC would take a second file called dvc.yaml for a pipeline of its own.
DVC_FILE = _ROOT / "stages.yaml"
_OURS = re.compile(r"\$\{code\}/(.+)")


def code_of(stage: str) -> list[str]:
    """Return the folders and modules of gradshard that dvc.yaml names as dependencies of a stage."""
    definition = YAML(typ="safe").load(DVC_FILE.read_text(encoding="utf-8"))["stages"][stage]
    found = (_OURS.fullmatch(dep) for dep in definition.get("do", definition)["deps"])
    return [match[1] for match in found if match]


def code_digest(stage: str) -> str:
    """Return one SHA-256, in hex, of the names and contents of all modules that a stage's outputs depend on."""
    places = [_ROOT / place for place in code_of(stage)]
    modules = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    return digest_of({str(path.relative_to(_ROOT)): file_sha256(path) for path in modules})
