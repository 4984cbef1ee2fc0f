"""The battery: sources and attacks that every target is tested against, split by what its training saw."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from gradshard.pipeline.config.section import Section
from gradshard.pipeline.types import ANY_SOURCE

if TYPE_CHECKING:
    from gradshard.pipeline.config.schema import Params

Half = Literal["all", "seen", "same architecture", "unseen"]
# Recorded instead of a half for the sources that are unseen for every target.
UNSEEN_BY_ALL = "unseen by all"


class BatteryParams(Section):
    """The battery: all of ``sources`` craft all of ``attacks`` against all targets.

    ``own`` attacks are crafted by each target against itself, to stand beside the transferred ones.
    """

    sources: Annotated[list[str], Field(min_length=1)]
    attacks: Annotated[list[str], Field(min_length=1)]
    own: list[str] = Field(default_factory=lambda: ["pgd"])


def split_battery(params: "Params", target: str) -> Mapping[Half, list[str]]:
    """Split the sources of the battery by what the training of a target saw of them.

    A target has ``seen`` a source if it was trained on a store of it or began with its weights, and also if the source
    is another snapshot of its own training. Other trainings of an architecture that it has seen are of the
    ``same architecture``; all others are ``unseen``. The target itself is in no part, because that would be a white
    box. Parts without sources are left out, so without a battery there are none.
    """
    battery = params.evaluation.battery
    sources = [source for source in battery.sources if source != target] if battery else []
    stored = _trained_on(params, target)
    architectures = {_architecture(params, source) for source in stored}
    seen = {*stored, *(source for source in sources if _training(source) == _training(target))}
    parts: dict[Half, list[str]] = {"all": sources, "seen": [], "same architecture": [], "unseen": []}
    for source in sources:
        known = _architecture(params, source) in architectures
        parts["seen" if source in seen else "same architecture" if known else "unseen"].append(source)
    return {part: names for part, names in parts.items() if names}


def unseen_by_all(params: "Params") -> list[str]:
    """Return the sources of the battery that are ``unseen`` for every target: the same adversary for all of them."""
    return _sources_outside(params, ("seen", "same architecture"))


def same_architecture_for_some(params: "Params") -> list[str]:
    """Return the sources that no target's training saw, of an architecture that some target's training saw."""
    unseen = unseen_by_all(params)
    return [source for source in _sources_outside(params, ("seen",)) if source not in unseen]


def _sources_outside(params: "Params", halves: Sequence[Half]) -> list[str]:
    """Return the battery's sources that are not targets and are in none of these parts for any target."""
    battery, targets = params.evaluation.battery, params.evaluation.targets
    if battery is None or not targets:
        return []
    parts = [split_battery(params, target) for target in targets]
    outside = {source for part in parts for half in halves for source in part.get(half, [])}
    return [source for source in battery.sources if source not in (*targets, *outside)]


def _trained_on(params: "Params", target: str) -> list[str]:
    """Return the models of the stores that a target is trained on, and the one whose weights it begins with."""
    model = params.robust.get(_training(target))
    if model is None:
        return []
    return [*(params.signs[store].model for store in model.sources), *([model.init_from] if model.init_from else [])]


def _training(name: str) -> str:
    """Return the name of the training that a model or a snapshot comes from."""
    return name.partition("@")[0]


def _architecture(params: "Params", name: str) -> str:
    base = _training(name)
    return params.robust[base].architecture if base in params.robust else params.static[base].architecture


def battery_source(half: str) -> str:
    """Name the source of a worst case over a half of the battery; no model can have this name."""
    return f"{ANY_SOURCE}: {half}"
