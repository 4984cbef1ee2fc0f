"""The arguments of ``compute_signs``, validated by the schema of ``params.yaml``, so that both accept the same."""

import operator
import re
from collections.abc import Mapping
from typing import SupportsIndex

import torch
from pydantic import ValidationError

from gradshard.pipeline.attacks.stored_rows import Direction
from gradshard.pipeline.config.direction import direction_of
from gradshard.pipeline.config.errors import explain
from gradshard.pipeline.config.signs import StoredSigns
from gradshard.pipeline.types import Gradient, StoreLabel, StorePrecision
from gradshard.storage.errors import GradshardError

# Values that count as an argument that was not given.
_USUAL: Mapping[str, object] = {"copies": 1, "seed": 0}


def direction_asked_for(
    *,
    gradient: Gradient | None,
    label: StoreLabel,
    precision: StorePrecision,
    attack: str | None,
    epsilon: float | None,
    alpha: float | None,
    steps: int | None,
    arguments: Mapping[str, object] | None,
    copies: int,
    seed: int,
) -> Direction:
    """Return the directions that were asked for; arguments are those of ``compute_signs``.

    Raises:
        GradshardError: an argument is missing, wrong, or not one of the attack's; the message names it.
    """
    if gradient is None and attack is None:
        gradient = "exact"
    if isinstance(epsilon, int | float) and epsilon > 1:
        raise GradshardError(
            f"compute_signs: epsilon is {epsilon:g}, but pixels lie in [0, 1]: if you mean {epsilon:g} of 255, write "
            f"{epsilon:g} / 255"
        )
    asked = {
        "gradient": gradient,
        "label": label,
        "precision": precision,
        "attack": attack,
        "eps": epsilon,
        "alpha": alpha,
        "steps": steps,
        "arguments": None if arguments is None else dict(arguments),
        "copies": copies,
        "seed": seed,
    }
    given = {name: _plain(value) for name, value in asked.items() if value is not None and value != _USUAL.get(name)}
    try:
        return direction_of(StoredSigns.model_validate(given), "attack")
    except ValidationError as error:
        # In the parameters it is called eps.
        sentence = re.sub(r"(?<!\.)\beps\b", "epsilon", explain(error.errors()[0], StoredSigns, given))
        sentence = sentence.replace("arguments: {", "arguments={")
        raise GradshardError(f"compute_signs: {sentence}") from None


def _plain(value: object) -> object:
    """Return a number of NumPy or torch as Python's, and anything else as it is."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return operator.index(value) if isinstance(value, SupportsIndex) and not isinstance(value, bool) else value
