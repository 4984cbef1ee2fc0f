"""Check of the epsilon at which training uses stores of attacks."""

from collections.abc import Mapping

from gradshard.stages.console.progress import echo
from gradshard.storage.formats.sign_reader import SignStore

# Training's epsilon over that of crafting: the range for which docs/transfer-defence.md measures the signs' worth.
MEASURED = (1 / 3, 4 / 3)


def tell_of_other_epsilons(stores: Mapping[str, SignStore], *, epsilon: float) -> None:
    """Warn of stores crafted at an epsilon so far from this one that their signs' worth was not measured."""
    low, high = MEASURED
    for name, store in stores.items():
        attack = store.manifest.direction.attack
        if attack is None or attack.epsilon is None:
            continue
        # Ratios of fractions such as 8/255 are rounded.
        if not low - 1e-6 <= epsilon / attack.epsilon <= high + 1e-6:
            echo(
                f"source {name} was crafted at epsilon {attack.epsilon:g} and is used at {epsilon:g}, beyond what was "
                "measured: `gradshard store fidelity --eps` tells what its signs are worth there"
            )
