"""Conversion of a section of the parameters to the directions whose signs a store holds."""

from typing import cast

from gradshard.pipeline.attacks.end_direction import AttackSpec
from gradshard.pipeline.attacks.stored_rows import Direction
from gradshard.pipeline.config.signs import StoredSigns
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.pipeline.types import LabelPolicy


def direction_of(wanted: StoredSigns, where: str) -> Direction:
    """Return the directions whose signs a store holds: those of gradients, or those of an attack.

    ``where`` says, for messages, where the attack is named.
    """
    if wanted.attack is None:
        # The schema allows the label ``random`` only with an attack.
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
