"""Checks of a model's adversarial training that need more than its own section."""

from collections.abc import Mapping
from typing import get_args

from gradshard.pipeline.config.errors import did_you_mean, schema_error
from gradshard.pipeline.config.methods import check_settings
from gradshard.pipeline.config.training import AdversarialParams, RobustModel, StaticModel
from gradshard.pipeline.training.methods.registry import DEFAULT_METHOD, METHODS
from gradshard.pipeline.types import Combination

# Keys of the default method alone, with their fields: they say who perturbs and what clean images weigh.
_ALIKE = ("sources", "attack", "label_at", "weights", "schedule", "clean_weight", "adversarial_weight")
_ENSEMBLE = {**{name: name for name in _ALIKE}, "self": "live"}


def check_training(key: str, model: RobustModel, adversarial: AdversarialParams) -> None:
    """Check that the method takes the given keys, that some source crafts, and that weights fit the schedule.

    Raises:
        PydanticCustomError: one of these does not hold; the error names the key.
    """
    _check_method(key, model)
    if model.method == DEFAULT_METHOD:
        _check_ensemble(key, model, adversarial)


def check_initial_weights(key: str, model: RobustModel, static: Mapping[str, StaticModel], holdout: str) -> None:
    """Check that the static model whose weights the training begins with, if any, fits and is not the holdout.

    Raises:
        PydanticCustomError: it does not fit, or is the holdout; the error names the key.
    """
    name, key = model.init_from, f"{key}.init_from"
    if name is None:
        return
    if name == holdout:
        raise schema_error(
            key,
            f"names the holdout {holdout}, which no training may see: begin with another model or choose another "
            "evaluation.holdout",
        )
    if static[name].architecture != model.architecture:
        raise schema_error(
            key,
            f"names {name}, of architecture {static[name].architecture}, but this model is of {model.architecture}: "
            "begin with a model of the same architecture",
        )
    if static[name].output != "logits":
        raise schema_error(key, f"names {name}, which gives probabilities: begin with a model that gives logits")


def check_adversarial_source(key: str, model: StaticModel) -> None:
    """Check that a static model has all keys of adversarial training if it is trained so, and none of them otherwise.

    Raises:
        PydanticCustomError: a key is missing or out of place; the error names the key.
    """
    others = ", ".join(name for name in METHODS if name != DEFAULT_METHOD)
    if model.method == DEFAULT_METHOD:
        raise schema_error(
            f"{key}.method", f"is {DEFAULT_METHOD}, which only robust models are trained by: choose one of {others}"
        )
    if model.method and not model.epochs:
        raise schema_error(f"{key}.method", "is given, but epochs is 0, which takes weights as they are: remove one")
    if model.method and model.epsilon is None:
        raise schema_error(f"{key}.eps", f"is missing, within which {model.method} perturbs")
    if model.epsilon is not None and not model.method:
        raise schema_error(f"{key}.eps", f"is for adversarial training: name a method ({others}), or remove it")
    check_settings(key, model, epochs=model.epochs)


def _check_method(key: str, model: RobustModel) -> None:
    """Refuse keys of other methods."""
    check_settings(key, model, epochs=model.epochs)
    if model.method == DEFAULT_METHOD:
        return
    for name, field in _ENSEMBLE.items():
        if field in model.model_fields_set:
            raise schema_error(
                f"{key}.{name}", f"is not for the method {model.method}, which perturbs every image itself: remove it"
            )
    if METHODS[model.method].own_signs and model.gradient is not None:
        raise schema_error(
            f"{key}.gradient", f"is not for the method {model.method}, whose signs are its own loss's: remove it"
        )


def _check_ensemble(key: str, model: RobustModel, adversarial: AdversarialParams) -> None:
    schedule = model.schedule or adversarial.schedule
    if not model.crafters:
        raise schema_error(f"{key}.self", "is false and there are no sources, so nothing perturbs: name sign stores")
    _check_attack(key, model, adversarial)
    if model.label_at is not None and (model.attack != "rand_fgsm" or adversarial.label == "true"):
        raise schema_error(
            f"{key}.label_at", "says which image's label rand_fgsm takes where labels are not the true ones: remove it"
        )
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


def _check_attack(key: str, model: RobustModel, adversarial: AdversarialParams) -> None:
    """Check that the model's own attack goes with its sources and has no settings of other attacks."""
    if model.attack == "rand_fgsm" and model.sources:
        raise schema_error(f"{key}.attack", "is rand_fgsm, which no stored sign serves: leave sources empty")
    if model.attack == "rand_fgsm" and adversarial.epsilon_law != "fixed":
        raise schema_error(
            f"{key}.attack",
            f"is rand_fgsm, whose random step is larger than some of the epsilons that {adversarial.epsilon_law} "
            "draws: choose adversarial.epsilon_law fixed, or another attack",
        )
    if model.attack == "pgd" and not model.live:
        raise schema_error(f"{key}.attack", "is pgd, by which the model itself perturbs, but self is false: remove one")
    if model.attack != "pgd" and model.settings:
        raise schema_error(
            f"{key}.{next(iter(model.settings))}",
            f"is for the attack pgd, but attack is {model.attack}: remove it, or choose attack: pgd",
        )


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
