"""The paper's own figures for MNIST, to stand beside measured ones; and which of our models they are about.

A robust model is named with its epochs: the paper's tables 1, 2 and 8 are about A_adv after 6 epochs.
"""

from pipeline.params import Params, RobustModel

# Error rates in percent, by target, source (empty for clean images) and attack: tables 1, 2, 4 and 8.
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

# Mean and standard deviation of the L2 norm of the loss's gradient over the test set: table 7.
GRADIENT_NORMS = {"A": (0.12, 0.95), "A_adv": (0.11, 0.81)}

# Error in percent of a random forest of 100 trees, on clean images and on a CNN's FGSM examples: appendix C. The paper
# says that these "transfer at a rate of 99 %".
FOREST = {"clean": 2.9, "fgsm": 99.0}

# Percent that A_adv still classifies right under FGSM with epsilon = 1: section 3.3.
RIGHT_AT_FULL_EPSILON = 43.0


def names(params: Params) -> dict[str, str]:
    """What the paper calls those of our models that it has too, by our name; none unless the data is MNIST.

    The paper has no second run of a model, so of several with the same name each is compared.
    """
    if params.dataset.name != "mnist":
        return {}
    called = {name: name for name, model in params.static.items() if model.architecture == name}
    for name, model in params.robust.models.items():
        base = _robust_name(params, model)
        if base:
            called[name] = f"{base}@{model.epochs}"
            called |= {f"{name}@{epoch}": f"{base}@{epoch}" for epoch in model.snapshots}
    return called


def _robust_name(params: Params, model: RobustModel) -> str | None:
    if model.attack != "fgsm":
        return None
    sources = sorted(params.static[params.signs[source].model].architecture for source in model.sources)
    return {
        ("A",): "A_adv",
        ("A", "A", "C", "D"): "A_adv-ens",
    }.get((model.architecture, *sources))
