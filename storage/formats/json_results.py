"""Reading results in JSON that another command wrote."""

import json
from pathlib import Path
from typing import Any

from gradshard.storage.errors import GradshardError


def read_results(path: Path, *, remedy: str) -> dict[str, Any]:
    """Read a JSON file of results.

    Args:
        path: the file.
        remedy: how to write the file again, for the error message.

    Raises:
        GradshardError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
    except ValueError as error:
        raise GradshardError(f"{path} is damaged ({error}): {remedy}") from error
    return found
