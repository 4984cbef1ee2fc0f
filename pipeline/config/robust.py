"""Checks of how a robust model is trained that its own section cannot make alone."""

from typing import get_args

from gradshard.pipeline.config.errors import did_you_mean, schema_error
from gradshard.pipeline.config.training import AdversarialParams, RobustModel
from gradshard.pipeline.types import Combination


def check_training(key: str, model: RobustModel, adversarial: AdversarialParams) -> None:
    """Check that somebody crafts, and that weights and objective are of use to the schedule.

    Raises:
        PydanticCustomError: they are not; the error names the key.
    """
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
