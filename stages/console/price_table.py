"""Prices of machines and bytes, from a file that the user writes."""

import dataclasses
import math
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gradshard.pipeline.cost_model import Prices
from gradshard.storage.errors import GradshardError

_NAMES = tuple(field.name for field in dataclasses.fields(Prices))


def read_prices(path: Path) -> Prices:
    """Read a table of prices: YAML whose keys are fields of ``Prices``.

    Raises:
        GradshardError: the file is missing, or holds anything but these prices.
    """
    try:
        table = YAML(typ="safe").load(path)
    except (OSError, YAMLError, ValueError, KeyError) as error:
        raise GradshardError(f"{path} cannot be read as a table of prices: {str(error).splitlines()[0]}") from error
    if not isinstance(table, dict) or "gpu_hour" not in table:
        raise GradshardError(f"{path} is no table of prices: write `gpu_hour: 2.5`, and what else costs something")
    for name, price in table.items():
        if name not in _NAMES:
            raise GradshardError(f"{path} has the unknown price {name}: known are {', '.join(_NAMES)}")
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
            raise GradshardError(f"{path}: {name} is {price}, which is no price: write a number such as 0.02")
    return Prices(**table)
