"""Stores of attacks as sources of training: what they can serve, and at which epsilon."""

from collections.abc import Mapping

from gradshard.pipeline.gradients.random_step import check_no_random_step
from gradshard.stages.support.progress import echo
from gradshard.storage.formats.sign_reader import SignStore

# Epsilon over that of crafting, where docs/transfer-defence.md has measured what the signs are worth.
MEASURED = (1 / 3, 4 / 3)


def check_attacks_of(stores: Mapping[str, SignStore], *, epsilon: float) -> None:
    """Refuse stores that training cannot step along, and tell of those that were crafted at a far other epsilon.

    Raises:
        GradshardError: a store's signs begin after a random step.
    """
    low, high = MEASURED
    for name, store in stores.items():
        check_no_random_step(store)
        attack = store.manifest.direction.attack
        if attack is None or attack.epsilon is None:
            continue
        # Fractions such as 16/256 are no exact decimals.
        if not low - 1e-6 <= epsilon / attack.epsilon <= high + 1e-6:
            echo(
                f"source {name} was crafted at epsilon {attack.epsilon:g} and is used at {epsilon:g}, beyond what was "
                "measured: `gradshard store fidelity --eps` tells what its signs are worth there"
            )
