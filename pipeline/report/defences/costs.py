"""Costs of targets, per training image: passes of training, and passes and bytes of what is stored for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Costs:
    """Costs by seed and target, as ``evaluate`` writes them (costs.json); figures are by seed, where they are known."""

    of: Mapping[int, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def training(self, target: str) -> dict[int, float]:
        """Return how often an image of the training set passed forward and backward in training, crafting included."""
        return self._by_seed(target, lambda cost: _passes(cost, cost["rows"]))

    def making(self, target: str) -> dict[int, float]:
        """Return how often an image passed through the models of the target's stores while these were made."""
        return self._by_seed(target, lambda cost: _sum([_of_store(store, _passes) for store in _stores(cost)]))

    def kept(self, target: str) -> dict[int, float]:
        """Return the bytes, per image, of the target's stores and of what its method keeps of each image in memory."""
        return self._by_seed(
            target,
            lambda cost: _sum(
                [
                    *(_of_store(store, lambda its, rows: its["bytes"] / rows) for store in _stores(cost)),
                    cost.get("prior_bytes", 0) / cost["rows"],
                ]
            ),
        )

    def _by_seed(self, target: str, figure: Callable[[Mapping[str, Any]], float | None]) -> dict[int, float]:
        found = {seed: figure(costs[target]) for seed, costs in self.of.items() if target in costs}
        return {seed: amount for seed, amount in found.items() if amount is not None}


def _stores(cost: Mapping[str, Any]) -> list[Mapping[str, Any] | None]:
    return list(cost["stores"].values())


def _of_store(
    store: Mapping[str, Any] | None, figure: Callable[[Mapping[str, Any], int], float | None]
) -> float | None:
    return None if store is None else figure(store, store["rows"])


def _passes(counted: Mapping[str, Any], rows: int) -> float | None:
    ways = (counted["forward"], counted["backward"])
    return None if None in ways else sum(ways) / rows


def _sum(parts: list[float | None]) -> float | None:
    """Add up the parts; the sum is unknown if a part is."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
