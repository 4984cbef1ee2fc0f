"""Points of the study's figures: errors against costs, and against properties of stores in which defences differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.config.signs import SignsParams
from gradshard.pipeline.report.defences.study import Study

# With the number of sources change the models that they are, and their weights.
_ALONG = {"sources": ("models of the stores", "weights")}


@dataclass(frozen=True)
class CostPoint:
    """One seed of a defence: its error rate, and the passes per training image without and with making its stores."""

    error: float
    training: float
    total: float


@dataclass(frozen=True)
class Panel:
    """Error rates against the one property in which defences differ.

    ``values`` are the values of the property, in order; each of ``lines``, named by the defences it goes through, has
    the error rate of every seed by value.
    """

    values: Sequence[str]
    lines: Mapping[str, Mapping[str, Sequence[float]]]


def cost_points(study: Study) -> dict[str, list[CostPoint]]:
    """Return every defence's seeds under the transferred worst case, as far as their cost is known."""
    found = {}
    for target in study.targets:
        training, making = study.costs.training(target), study.costs.making(target)
        rates = study.transferred(target).rates
        seeds = [seed for seed in rates if seed in training and seed in making]
        points = [CostPoint(rates[seed].rate, training[seed], training[seed] + making[seed]) for seed in seeds]
        if points:
            found[target] = points
    return found


def store_panels(study: Study) -> dict[str, Panel]:
    """Return a panel for each of sources, copies and attack stored, if some defences differ in it alone."""
    described = {name: found for name in study.targets if (found := _describe(study.params, name))}
    panels = {}
    for factor in ("sources", "copies", "attack stored"):
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, its in described.items():
            varied = (factor, *_ALONG.get(factor, ()))
            alike.setdefault(tuple(its[key] for key in its if key not in varied), []).append(name)
        lines = {
            ", ".join(names): _line(study, {name: described[name][factor] for name in names})
            for names in alike.values()
            if len({described[name][factor] for name in names}) > 1
        }
        values = dict.fromkeys(value for line in lines.values() for value in line)
        if lines:
            panels[factor] = Panel(sorted(values, key=_in_order) if factor != "attack stored" else list(values), lines)
    return panels


def _line(study: Study, value_of: Mapping[str, str]) -> dict[str, list[float]]:
    line: dict[str, list[float]] = {}
    for name, value in value_of.items():
        line.setdefault(value, []).extend(rate.rate for rate in study.transferred(name).rates.values())
    return line


def _describe(params: Params, target: str) -> dict[str, str]:
    """Describe the stores that a defence is trained on, and all else about it; nothing for one without stores."""
    base, at, snapshot = target.partition("@")
    model = params.robust.get(base)
    if model is None or not model.sources:
        return {}
    stores = [params.signs[source] for source in model.sources]
    return {
        "sources": str(len({store.model for store in stores})),
        "models of the stores": _joined(sorted(store.model for store in stores)),
        "copies": _joined(str(store.copies) for store in stores),
        "attack stored": _joined(_attack(store) for store in stores),
        "else of the stores": _joined(_otherwise(store, params.attack.epsilon) for store in stores),
        "weights": str(sorted(model.weights.values())),
        "else": at + snapshot + model.model_dump_json(exclude={"sources", "weights", "snapshots"}),
    }


def _attack(store: SignsParams) -> str:
    title = attack_title(store.attack or "fgsm")
    return f"{title}, {store.steps} steps" if store.steps else title


def _otherwise(store: SignsParams, epsilon: float) -> str:
    """Name the other properties of a store's signs; its own epsilon only if it is not that of training."""
    other = "" if store.epsilon in (None, epsilon) else f", epsilon {store.epsilon:g}"
    return f"{store.gradient}, {store.label}, {store.precision}, {store.alpha}, {store.arguments}{other}"


def _joined(words: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(words))


def _in_order(numbers: str) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers.split(" + "))
