"""Checks of how a robust model is trained that its own section cannot make alone."""

from typing import get_args

from gradshard.pipeline.config.errors import did_you_mean, schema_error
from gradshard.pipeline.config.training import AdversarialParams, RobustModel
from gradshard.pipeline.training.methods.registry import DEFAULT_METHOD, METHODS
from gradshard.pipeline.types import Combination

# Keys that say who perturbs and what clean images weigh, by their fields.
_ENSEMBLE = {name: name for name in ("sources", "attack", "weights", "schedule", "clean_weight")} | {"self": "live"}


def check_training(key: str, model: RobustModel, adversarial: AdversarialParams) -> None:
    """Check that the method takes what is given, that somebody crafts, and that weights are of use to the schedule.

    Raises:
        PydanticCustomError: it is not so; the error names the key.
    """
    _check_method(key, model)
    if model.method == DEFAULT_METHOD:
        _check_ensemble(key, model, adversarial)


def _check_method(key: str, model: RobustModel) -> None:
    """Refuse what is another method's."""
    entry = METHODS[model.method]
    for name in model.settings:
        if name not in entry.settings:
            takers = ", ".join(method for method, other in METHODS.items() if name in other.settings)
            raise schema_error(f"{key}.{name}", f"is for the method {takers}, not for {model.method}: remove it")
    if model.method == DEFAULT_METHOD:
        return
    for name, field in _ENSEMBLE.items():
        if field in model.model_fields_set:
            raise schema_error(
                f"{key}.{name}", f"is not for the method {model.method}, which perturbs every image itself: remove it"
            )
    if entry.own_signs and model.gradient is not None:
        raise schema_error(
            f"{key}.gradient", f"is not for the method {model.method}, whose signs are its own loss's: remove it"
        )
    _check_reach(key, model)
    if model.epochs % model.replayed:
        raise schema_error(
            f"{key}.epochs",
            f"is {model.epochs}, which {model.replayed} replays of every batch do not divide: an epoch counts as many "
            "steps as it has batches, so choose a multiple, or other replays",
        )


def _check_reach(key: str, model: RobustModel) -> None:
    """Refuse steps too small to get from an image to the surface of its ball."""
    if model.step_size is not None and "steps" in METHODS[model.method].settings:
        steps = model.steps or METHODS[model.method].settings["steps"] or 1
        if steps * model.step_size < 1:
            raise schema_error(
                f"{key}.step_size",
                f"is {model.step_size:g} times attack.eps, by which {steps} steps never reach eps: a step of 2/255 at "
                "eps 8/255 is written 0.25",
            )


def _check_ensemble(key: str, model: RobustModel, adversarial: AdversarialParams) -> None:
    schedule = model.schedule or adversarial.schedule
    if not model.crafters:
        raise schema_error(f"{key}.self", "is false and there are no sources, so nothing perturbs: name sign stores")
    if model.attack != "fgsm" and model.sources:
        raise schema_error(f"{key}.attack", f"is {model.attack}, which no stored sign serves: leave sources empty")
    for name, weight in model.weights.items():
        if name not in model.crafters:
            known = did_you_mean(name, list(model.crafters))
            raise schema_error(f"{key}.weights", f"names {name}, which is not a source of this model{known}")
        if schedule == "rotate" and weight != round(weight):
            raise schema_error(
                f"{key}.weights.{name}", f"is {weight:g}, but sources that rotate weigh whole numbers of batches"
            )
    if model.clean_weight is not None and adversarial.objective != "both":
        raise schema_error(f"{key}.clean_weight", "is for the objective both: remove it, or choose that")
    if model.adversarial_weight is not None and adversarial.objective != "half":
        raise schema_error(f"{key}.adversarial_weight", "is for the objective half: remove it, or choose that")
    if schedule in get_args(Combination) and len(model.crafters) > 1:
        _check_combination(key, model, adversarial, schedule)


def _check_combination(key: str, model: RobustModel, adversarial: AdversarialParams, schedule: str) -> None:
    if adversarial.objective != "both":
        raise schema_error(
            "adversarial.objective",
            f"is {adversarial.objective}, which replaces images by those of one source: choose both, or for {key} the "
            f"schedule random or rotate instead of {schedule}",
        )
    if schedule == "top_k" and adversarial.top_k > len(model.crafters):
        named = f"{len(model.crafters)} sources ({', '.join(model.crafters)})"
        raise schema_error("adversarial.top_k", f"is {adversarial.top_k}, but {key} has {named}: lower it")
