"""The paper's own figures, to stand beside measured ones; and the paper's names of our models.

On MNIST a robust model is named with its epochs: the paper's tables 1, 2 and 8 are about A_adv after 6 epochs.
"""

from collections.abc import Mapping
from typing import get_args

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.config.training import RobustModel
from gradshard.pipeline.types import PRETRAINED, ScheduleKind

# Error rates on MNIST in percent, by target, source (empty for clean images) and attack: tables 1, 2, 4 and 8.
ERRORS = {
    ("A", "A", "fgsm"): 71.4,
    ("A_adv@6", "A", "fgsm"): 11.9,
    ("B", "A", "fgsm"): 50.7,
    ("A", "A_adv@6", "fgsm"): 24.7,
    ("A_adv@6", "A_adv@6", "fgsm"): 3.6,
    ("B", "A_adv@6", "fgsm"): 25.4,
    ("A", "B", "fgsm"): 62.4,
    ("A_adv@6", "B", "fgsm"): 18.2,
    ("B", "B", "fgsm"): 84.6,
    ("A", "A", "rand_fgsm"): 75.3,
    ("A_adv@6", "A", "rand_fgsm"): 10.0,
    ("B", "A", "rand_fgsm"): 53.1,
    ("A", "A_adv@6", "rand_fgsm"): 26.2,
    ("A_adv@6", "A_adv@6", "rand_fgsm"): 34.1,
    ("B", "A_adv@6", "rand_fgsm"): 28.7,
    ("A", "B", "rand_fgsm"): 58.3,
    ("A_adv@6", "B", "rand_fgsm"): 12.4,
    ("B", "B", "rand_fgsm"): 86.2,
    ("A_adv@6", "", "clean"): 1.0,
    ("A_adv-ens@6", "", "clean"): 0.9,
    ("A_adv@12", "", "clean"): 0.7,
    ("A_adv-ens@12", "", "clean"): 0.7,
    ("A_adv-ens@6", "A_adv-ens@6", "fgsm"): 11.8,
    ("A_adv@12", "A_adv@12", "fgsm"): 3.8,
    ("A_adv-ens@12", "A_adv-ens@12", "fgsm"): 6.0,
    ("A_adv-ens@6", "B", "fgsm"): 5.0,
    ("A_adv@12", "B", "fgsm"): 15.5,
    ("A_adv-ens@12", "B", "fgsm"): 3.9,
    ("A_adv@6", "B", "ifgsm"): 19.8,
    ("A_adv-ens@6", "B", "ifgsm"): 9.7,
    ("A_adv@12", "B", "ifgsm"): 13.5,
    ("A_adv-ens@12", "B", "ifgsm"): 6.2,
    ("A_adv-ens@6", "B", "rand_fgsm"): 3.4,
    ("A_adv@12", "B", "rand_fgsm"): 9.5,
    ("A_adv-ens@12", "B", "rand_fgsm"): 2.9,
}

# The same for ImageNet, top 1 and top 5: tables 1, 5 and 8; where two give a figure, that over all test images.
IMAGENET_ERRORS = {
    ("v3_adv", "v3", "fgsm"): (35.8, 13.4),
    ("v4", "v3", "fgsm"): (39.2, 15.0),
    ("v3", "v3_adv", "fgsm"): (36.4, 13.0),
    ("v4", "v3_adv", "fgsm"): (31.1, 10.3),
    ("v4", "v4", "fgsm"): (60.2, 30.8),
    ("v3", "v3", "rand_fgsm"): (80.1, 57.7),
    ("v3_adv", "v3", "rand_fgsm"): (30.9, 10.4),
    ("v4", "v3", "rand_fgsm"): (37.5, 14.3),
    ("v3", "v3_adv", "rand_fgsm"): (26.7, 8.0),
    ("v3_adv", "v3_adv", "rand_fgsm"): (64.2, 37.2),
    ("v4", "v3_adv", "rand_fgsm"): (23.0, 6.4),
    ("v4", "v4", "rand_fgsm"): (70.3, 42.5),
    ("v3", "", "clean"): (22.0, 6.1),
    ("v3_adv", "", "clean"): (22.0, 6.1),
    ("v3_adv-ens3", "", "clean"): (23.6, 7.6),
    ("v3_adv-ens4", "", "clean"): (24.2, 7.8),
    ("IncRes_v2", "", "clean"): (19.6, 4.8),
    ("IncRes_v2_adv-ens", "", "clean"): (20.2, 5.1),
    ("v3", "v3", "fgsm"): (69.8, 42.8),
    ("v3_adv", "v3_adv", "fgsm"): (26.8, 9.0),
    ("v3_adv-ens3", "v3_adv-ens3", "fgsm"): (30.0, 10.4),
    ("v3_adv-ens4", "v3_adv-ens4", "fgsm"): (43.1, 19.5),
    ("IncRes_v2", "IncRes_v2", "fgsm"): (51.3, 23.9),
    ("IncRes_v2_adv-ens", "IncRes_v2_adv-ens", "fgsm"): (25.9, 7.7),
    ("v3", "v4", "fgsm"): (43.8, 18.9),
    ("v3_adv", "v4", "fgsm"): (36.5, 13.5),
    ("v3_adv-ens3", "v4", "fgsm"): (30.4, 10.2),
    ("v3_adv-ens4", "v4", "fgsm"): (29.6, 9.6),
    ("IncRes_v2", "v4", "fgsm"): (38.0, 14.1),
    ("IncRes_v2_adv-ens", "v4", "fgsm"): (24.6, 6.8),
    ("v3", "v4", "rand_fgsm"): (42.8, 17.4),
    ("v3_adv", "v4", "rand_fgsm"): (30.8, 10.4),
    ("v3_adv-ens3", "v4", "rand_fgsm"): (29.9, 9.7),
    ("v3_adv-ens4", "v4", "rand_fgsm"): (29.1, 9.5),
    ("IncRes_v2", "v4", "rand_fgsm"): (36.8, 13.0),
    ("IncRes_v2_adv-ens", "v4", "rand_fgsm"): (25.0, 7.2),
}
_TOPS = (1, 5)

# Mean and standard deviation of the L2 norm of the loss's gradient over the test set: table 7.
GRADIENT_NORMS = {"A": (0.12, 0.95), "A_adv": (0.11, 0.81), "v3": (0.10, 0.15), "v3_adv": (0.17, 0.23)}

# Error in percent of a random forest of 100 trees, on clean images and on a CNN's FGSM examples: appendix C. The paper
# says that these "transfer at a rate of 99 %".
FOREST = {"clean": 2.9, "fgsm": 99.0}
FOREST_EPSILON = 0.3

# Percent that A_adv still classifies right under FGSM with epsilon = 1: section 3.3.
RIGHT_AT_FULL_EPSILON = 43.0


# The paper's names of published weights, by architecture.
_PUBLISHED = {
    "timm:inception_v3.tf_in1k": "v3",
    "timm:inception_v3.tf_adv_in1k": "v3_adv",
    "timm:inception_v4.tf_in1k": "v4",
    "timm:inception_resnet_v2.tf_in1k": "IncRes_v2",
    "timm:inception_resnet_v2.tf_ens_adv_in1k": "IncRes_v2_adv-ens",
}
_IMAGENET_SIZE = 299
# By dataset: the epsilon of the paper's attacks, and how its robust models were trained (sections 4.1 and 5.1).
_EPSILONS = {"mnist": 0.3, "imagefolder": 16 / 256}
_TRAINED: Mapping[str, Mapping[str, str | float]] = {
    "mnist": {"objective": "both", "clean_weight": 0.5, "epsilon_law": "fixed", "label": "predicted"},
    "imagefolder": {"objective": "half", "epsilon_law": "truncated_normal", "label": "least_likely"},
}


def error(target: str, source: str, attack: str, top: int) -> float | None:
    """Return the paper's error rate in percent, if it gives one; models have the paper's names here."""
    key = (target, source, attack)
    if top == 1 and key in ERRORS:
        return ERRORS[key]
    return IMAGENET_ERRORS[key][_TOPS.index(top)] if key in IMAGENET_ERRORS and top in _TOPS else None


def names(params: Params) -> dict[str, str]:
    """Return, by our name, the paper's name of each of our models that it has too.

    There are none unless data and epsilon are the paper's.
    """
    if params.attack.epsilon != _EPSILONS.get(params.dataset.name):
        return {}
    if params.dataset.name == "mnist":
        return _mnist_names(params)
    if params.dataset.name == "imagefolder" and params.dataset.size == _IMAGENET_SIZE:
        return _imagenet_names(params)
    return {}


def _mnist_names(params: Params) -> dict[str, str]:
    called = {name: name for name, model in params.static.items() if model.architecture == name}
    for name, model in _trained_as_there(params).items():
        base = _mnist_robust_name(params, model)
        if base:
            called[name] = f"{base}@{model.epochs}"
            called |= {f"{name}@{epoch}": f"{base}@{epoch}" for epoch in model.snapshots}
    return called


def _trained_as_there(params: Params) -> dict[str, RobustModel]:
    """Return the robust models that are trained as in the paper: on every row, and from random weights on.

    Each batch has one source; all sources weigh the same, and the model itself is among them.
    """
    wanted, adversarial = _TRAINED[params.dataset.name], params.adversarial
    if adversarial.held_back or any(getattr(adversarial, name) != value for name, value in wanted.items()):
        return {}
    return {
        name: model
        for name, model in params.robust.items()
        if model.method == "ensemble"
        and model.init_from is None
        and model.live
        and not model.weights
        and model.clean_weight is None
        and (model.schedule or params.adversarial.schedule) in get_args(ScheduleKind)
    }


def _mnist_robust_name(params: Params, model: RobustModel) -> str | None:
    if model.attack != "fgsm":
        return None
    sources = sorted(params.static[params.signs[source].model].architecture for source in model.sources)
    return {
        ("A",): "A_adv",
        ("A", "A", "C", "D"): "A_adv-ens",
    }.get((model.architecture, *sources))


def _imagenet_names(params: Params) -> dict[str, str]:
    called = {
        name: _PUBLISHED[model.architecture]
        for name, model in params.static.items()
        if model.weights == PRETRAINED and model.architecture in _PUBLISHED
    }
    for name, model in _trained_as_there(params).items():
        trained = family(model.architecture)
        sources = tuple(sorted(family(params.static[params.signs[s].model].architecture) for s in model.sources))
        if (trained, sources) in _IMAGENET_ROBUST:
            called[name] = _IMAGENET_ROBUST[trained, sources]
    return called


# Table 3: the architecture trained, and those of its sources.
_IMAGENET_ROBUST = {
    ("inception_v3", ()): "v3_adv",
    ("inception_v3", ("inception_v3", "resnetv2_50")): "v3_adv-ens3",
    ("inception_v3", ("inception_resnet_v2", "inception_v3", "resnetv2_50")): "v3_adv-ens4",
    ("inception_resnet_v2", ("inception_resnet_v2", "inception_v3")): "IncRes_v2_adv-ens",
}


def family(architecture: str) -> str:
    """Return an architecture without the tag of its weights: inception_v3 for timm:inception_v3.tf_in1k."""
    return architecture.removeprefix("timm:").partition(".")[0]
