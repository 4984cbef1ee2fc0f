"""Optional parts of a project, each switched off in its parameters."""

from collections.abc import Callable, Collection, Mapping
from typing import Any


def _without_models(params: dict[str, Any], gone: Collection[str]) -> None:
    """Take models out of everything that names them."""
    evaluation, analysis, blackbox = params["evaluation"], params["analysis"], params["blackbox"]

    def left(names: list[str]) -> list[str]:
        return [name for name in names if name.partition("@")[0] not in gone]

    for key in ("targets", "illustrated", "diagnosed"):
        evaluation[key] = left(evaluation[key])
    evaluation["attacks"] = {attack: left(names) for attack, names in evaluation["attacks"].items()}
    analysis["models"], blackbox["targets"] = left(analysis["models"]), left(blackbox["targets"])
    plane, forest = analysis["plane"], blackbox["forest"]
    if plane and len(left([plane["model"], plane["source"]])) < 2:
        analysis["plane"] = None
    if forest:
        forest["sources"] = left(forest["sources"])


def _no_robust_models(params: dict[str, Any]) -> None:
    _without_models(params, params["robust"].keys())
    params["robust"] = {}


def _no_stores(params: dict[str, Any]) -> None:
    params["signs"] = {}
    for model in params["robust"].values():
        model["sources"] = []
        model.pop("weights", None)


def _no_training_images(params: dict[str, Any]) -> None:
    _no_robust_models(params)
    _no_stores(params)
    params["dataset"]["train"] = None
    params["blackbox"]["forest"] = None
    for model in params["static"].values():
        model.update(epochs=0, weights=model.get("weights", "random"))


def _put(section: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(params: dict[str, Any]) -> None:
        params[section][key] = value

    return change


SWITCHES: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "training images": _no_training_images,
    "stores": _no_stores,
    "robust models": _no_robust_models,
    "targets": _put("evaluation", "targets", []),
    "attacks": _put("evaluation", "attacks", {}),
    "pictures": _put("evaluation", "illustrated", []),
    "diagnoses": _put("evaluation", "diagnosed", []),
    "gradients": _put("analysis", "models", []),
    "plane": _put("analysis", "plane", None),
    "queries": _put("blackbox", "targets", []),
    "forest": _put("blackbox", "forest", None),
}
