"""Checks of the stores that training uses: that they hold what the parameters say, and are used near their epsilon."""

from collections.abc import Mapping
from pathlib import Path

from gradshard.pipeline.config.signs import SignsParams
from gradshard.pipeline.gradients.signs import PRECISIONS
from gradshard.pipeline.types import OWN_LOSS
from gradshard.stages.console.progress import echo
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.manifest import DirectionRecord
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


def check_promised(store: SignStore, wanted: SignsParams, weights: Path, *, name: str, source: str) -> None:
    """Check that a store of the project holds what its section of the parameters says.

    Other weights are only told: a store may have been fetched, and the model trained here.

    Args:
        store: from the project's folder.
        wanted: the section ``signs.NAME``.
        weights: where the model's weights are, if they are here.
        name: of the section.
        source: the robust model's name for it.

    Raises:
        GradshardError: the store was made with another attack, gradient or label, or other numbers.
    """
    differing = _differing(store.manifest.direction, wanted)
    if differing:
        raise GradshardError(
            f"{store.where} was made with {differing}: run `gradshard precompute {name}`, or train on it as it is by "
            f"--store {source}={store.where}"
        )
    if weights.exists() and file_sha256(weights) != store.manifest.model.weights_sha256:
        echo(
            f"{store.where} was made from other weights than {weights}: unless that is meant, run `gradshard "
            f"precompute {name}`"
        )


def _differing(found: DirectionRecord, wanted: SignsParams) -> str:
    """Return a description of the first key that differs; empty if none does."""
    attack = found.attack
    pairs: dict[str, tuple[object, object]] = {
        "attack": (attack.name if attack else None, wanted.attack),
        "label": (found.label, wanted.label),
        "precision": (PRECISIONS.get(found.dtype, found.dtype), wanted.precision),
    }
    if found.gradient != OWN_LOSS:
        pairs["gradient"] = found.gradient, wanted.gradient
    if attack is not None:
        pairs |= {"copies": (attack.copies, wanted.copies), "seed": (attack.seed, wanted.seed)}
        pairs["arguments"] = dict(attack.arguments), dict(wanted.arguments)
        numbers = {
            "eps": (attack.epsilon, wanted.epsilon),
            "alpha": (attack.alpha, wanted.alpha),
            "steps": (attack.steps, wanted.steps),
        }
        # None where the attack takes no such number, or has a usual one.
        pairs |= {key: pair for key, pair in numbers.items() if None not in pair}
    for key, (there, asked) in pairs.items():
        if there != asked:
            return f"{key}: {_word(there)}, where the parameters say {_word(asked)}"
    return ""


def _word(value: object) -> str:
    return "none" if value is None else str(value)
