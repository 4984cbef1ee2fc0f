"""Passes through a model that a sign store took to make, counted from what its manifest says."""

from typing import NamedTuple

from gradshard.pipeline.attacks.registry import ATTACKS


class StorePasses(NamedTuple):
    """Times that an image passed through the model to be stored, forward and backward."""

    forward: int
    backward: int


def store_passes(attack: str | None, *, label: str, steps: int = 1, copies: int = 1) -> StorePasses | None:
    """Count the passes that the making of a store took for each image; none of an attack that tells no number of steps.

    Args:
        attack: the name of the attack, none for signs of the gradient.
        label: whose label it is about; what is no true label takes a forward pass of its own, once for all copies.
        steps: of the attack.
        copies: of the attack.
    """
    if attack is None:
        return StorePasses(1, 1)
    if attack not in ATTACKS or ATTACKS[attack].steps != 1:
        return None
    asked = int(label != "true")
    # From random starts it looks where it ended, to keep the best end.
    looked = int("starts" in ATTACKS[attack].takes.values())
    return StorePasses(asked + copies * (steps + looked), copies * steps)
