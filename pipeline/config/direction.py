"""From a section of the parameters to the directions that a store holds the signs of."""

from typing import cast

from gradshard.pipeline.attacks.end_direction import AttackSpec
from gradshard.pipeline.attacks.stored_rows import Direction
from gradshard.pipeline.config.signs import StoredSigns
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.pipeline.types import LabelPolicy


def direction_of(wanted: StoredSigns, where: str) -> Direction:
    """Return the directions that a store holds the signs of: of gradients, or of an attack.

    ``where`` is what names the attack, for messages.
    """
    if wanted.attack is None:
        # A target needs an attack, which the schema sees to.
        return GradientSpec(wanted.gradient, cast(LabelPolicy, wanted.label), wanted.precision)
    return AttackSpec(
        attack=wanted.attack,
        gradient=wanted.gradient,
        policy=wanted.label,
        epsilon=wanted.epsilon or 1.0,
        alpha=wanted.alpha or 0.0,
        steps=wanted.steps or 1,
        arguments=wanted.arguments,
        seed=wanted.seed,
        copies=wanted.copies,
        precision=wanted.precision,
        where=where,
    )
