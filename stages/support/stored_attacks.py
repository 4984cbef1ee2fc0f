"""Stores of attacks as sources of training: at which epsilon they are used."""

from collections.abc import Mapping

from gradshard.stages.support.progress import echo
from gradshard.storage.formats.sign_reader import SignStore

# Epsilon over that of crafting, where docs/transfer-defence.md has measured what the signs are worth.
MEASURED = (1 / 3, 4 / 3)


def tell_of_other_epsilons(stores: Mapping[str, SignStore], *, epsilon: float) -> None:
    """Tell of stores that were crafted at an epsilon so far from this one that nobody measured what they are worth."""
    low, high = MEASURED
    for name, store in stores.items():
        attack = store.manifest.direction.attack
        if attack is None or attack.epsilon is None:
            continue
        # Fractions such as 16/256 are no exact decimals.
        if not low - 1e-6 <= epsilon / attack.epsilon <= high + 1e-6:
            echo(
                f"source {name} was crafted at epsilon {attack.epsilon:g} and is used at {epsilon:g}, beyond what was "
                "measured: `gradshard store fidelity --eps` tells what its signs are worth there"
            )
