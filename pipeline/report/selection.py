"""Choice of the models that each part of the report shows: pure functions of the parameters."""

from collections import Counter
from collections.abc import Sequence

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.report.paper import paper_figures
from gradshard.pipeline.types import BEST, Gradient


def trained_on(params: Params, target: str) -> str:
    """Return the gradient that a robust model was trained on; empty for a static one."""
    model = params.robust.get(_base(target))
    return (model.gradient or params.adversarial.gradient) if model else ""


def shown_targets(params: Params, gradient: Gradient) -> list[str]:
    """Return the targets that a gradient's tables show: static models, and any robust ones trained on it.

    Models trained on RAND+FGSM have a table of their own.
    """
    targets = [name for name in params.evaluation.targets if _in_the_paper(params, name)]
    robust = [name for name in targets if trained_on(params, name) == gradient]
    return [name for name in targets if not trained_on(params, name) or name in robust or not robust]


def compared(params: Params, targets: Sequence[str]) -> dict[str, list[str]]:
    """Return the robust models among the targets in comparable groups, as in the paper's tables 4 and 5.

    Models of the architecture that was trained on stores are grouped by the epochs they were trained for, fewest first.
    If several architectures were, each is one group, with its undefended models. If no model was trained here, the
    static models that share an architecture are compared, because their weights may come from a defence.
    """
    static = {name: params.static[name] for name in targets if name in params.static}
    robust = {name: params.robust[base] for name in targets if (base := _base(name)) in params.robust}
    trained = [model for model in robust.values() if model.sources] or list(robust.values())
    families = dict.fromkeys(paper_figures.family(model.architecture) for model in trained)
    if not robust:
        counts = Counter(paper_figures.family(model.architecture) for model in static.values())
        families = dict.fromkeys(family for family, count in counts.items() if count > 1)
    if len(families) > 1:
        of = {name: paper_figures.family(its.architecture) for name, its in (static | robust).items()}
        return {family: [name for name in of if of[name] == family] for family in families}
    groups: dict[int, list[str]] = {}
    for name, model in robust.items():
        snapshot = name.partition("@")[2]
        if snapshot != BEST and paper_figures.family(model.architecture) in families:
            groups.setdefault(int(snapshot or model.epochs), []).append(name)
    best = [name for name in robust if name.partition("@")[2] == BEST]
    return {f"{epochs} epochs": groups[epochs] for epochs in sorted(groups)} | ({BEST: best} if best else {})


def trained_on_random_steps(params: Params, gradient: Gradient) -> list[str]:
    """Return the targets trained on RAND+FGSM examples of a gradient."""
    return [
        name
        for name in params.evaluation.targets
        if name in params.robust and params.robust[name].attack == "rand_fgsm" and trained_on(params, name) == gradient
    ]


def standard(params: Params, names: Sequence[str]) -> list[str]:
    """Return those of ``names`` that are robust models without stores (standard adversarial training).

    Models trained by other papers' methods are left out: this paper does not compare its own with them.
    """
    robust = {name: params.robust[name] for name in names if name in params.robust}
    return [name for name, model in robust.items() if model.method == "ensemble" and not model.sources]


def ensembles(params: Params, names: Sequence[str]) -> list[str]:
    """Return those of ``names`` that are robust models trained on stores (ensemble adversarial training)."""
    return [name for name in names if name in params.robust and params.robust[name].sources]


def trained_here(params: Params) -> list[str]:
    """Return the robust models among the targets, without snapshots."""
    return [name for name in params.robust if any(_base(target) == name for target in params.evaluation.targets)]


def held_out(params: Params) -> list[str]:
    """Return the static models that craft FGSM at evaluation and that no robust model has as a source."""
    seen = {params.signs[store].model for model in params.robust.values() for store in model.sources}
    seen |= {model.init_from for model in params.robust.values() if model.init_from}
    return [name for name in params.evaluation.attacks.get("fgsm", []) if name in params.static and name not in seen]


def _base(target: str) -> str:
    """Return the model that a snapshot is of."""
    return target.partition("@")[0]


def _in_the_paper(params: Params, target: str) -> bool:
    model = params.robust.get(_base(target))
    return model is None or model.attack == "fgsm"
