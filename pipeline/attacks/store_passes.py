"""The number of passes through a model that it took to make a sign store, from the store's manifest."""

from typing import NamedTuple

from gradshard.pipeline.attacks.registry import ATTACKS


class StorePasses(NamedTuple):
    """Number of forward and of backward passes of each image to make a store."""

    forward: int
    backward: int


def store_passes(attack: str | None, *, label: str, steps: int = 1, copies: int = 1) -> StorePasses | None:
    """Count the passes of each image that it took to make a store; None if the attack's number of passes is unknown.

    Args:
        attack: the name of the attack; None for signs of the gradient.
        label: the label policy; any but ``true`` takes one more forward pass, for all copies together.
        steps: the attack's number of steps.
        copies: the attack's number of copies.
    """
    if attack is None:
        return StorePasses(1, 1)
    if attack not in ATTACKS or ATTACKS[attack].steps != 1:
        return None
    asked = int(label != "true")
    # An attack from random starts takes one more forward pass at each end, to keep the best one.
    looked = int("starts" in ATTACKS[attack].takes.values())
    return StorePasses(asked + copies * (steps + looked), copies * steps)
