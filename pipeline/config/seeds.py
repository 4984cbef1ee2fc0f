"""The seeds that robust models are trained with, and stand-ins for static models and stores in the run of a seed."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from gradshard.pipeline.config.errors import did_you_mean, schema_error
from gradshard.pipeline.config.fields import ModelName, Seed

if TYPE_CHECKING:
    from gradshard.pipeline.config.schema import Params


def _once(seeds: list[int]) -> list[int]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError("must list at least one seed, and each once")
    return seeds


# A list and not a mapping from seeds to stand-ins, because DVC makes a stage of every entry and drops keys that are not
# text.
SeedList = Annotated[list[Seed], AfterValidator(_once)]
StandIns = dict[Seed, dict[ModelName, ModelName]]


def refuse_old_keys(robust: object) -> None:
    """Refuse the old keys ``seed`` and ``run_of`` of a robust model, and say how they are written now.

    Raises:
        PydanticCustomError: a model has such a key.
    """
    models = robust if isinstance(robust, Mapping) else {}
    for name, model in models.items():
        if isinstance(model, Mapping) and "run_of" in model:
            raise schema_error(
                f"{name}.run_of",
                "is gone: remove this model, and list its seed in seeds, beside that of the model it repeats; every "
                "robust model is trained with each seed",
            )
    for name, model in models.items():
        if isinstance(model, Mapping) and "seed" in model:
            raise schema_error(
                f"{name}.seed",
                f"is gone: remove it and write `seeds: [{model['seed']}]` and `stand_ins: {{}}` at the top level; "
                "every robust model is trained with each seed",
            )


def check_stand_ins(params: "Params") -> None:
    """Check the stand-ins for static models and sign stores in the run of each seed.

    Raises:
        PydanticCustomError: a seed or a name is unknown, the two are not alike, or a run would mix them.
    """
    used = _names_in_use(params)
    for seed, instead in params.stand_ins.items():
        key = f"stand_ins.{seed}"
        if seed not in params.seeds:
            raise schema_error(key, f"is of a seed that seeds does not list ({', '.join(map(str, params.seeds))})")
        for name, other in instead.items():
            _check_one(params, f"{key}.{name}", name, other)
            if other in used:
                raise schema_error(
                    f"{key}.{name}",
                    f"names {other}, which {used[other]} names too: what stands for another is used nowhere else",
                )
        twice = [other for other in instead.values() if list(instead.values()).count(other) > 1]
        if twice:
            raise schema_error(key, f"names {twice[0]} twice")
        _check_stores_follow(params, key, instead)


def _check_one(params: "Params", key: str, name: str, other: str) -> None:
    known: Collection[str] = [*params.static, *params.signs]
    if name not in known:
        raise schema_error(key, f"is of no static model and no sign store{did_you_mean(name, list(known))}")
    if name in params.static:
        if other not in params.static:
            raise schema_error(key, f"names {other}, which is not a static model: add it to static")
        if params.static[other].architecture != params.static[name].architecture:
            raise schema_error(key, f"names {other}, which is of another architecture than {name}")
    if name in params.signs:
        if other not in params.signs:
            raise schema_error(key, f"names {other}, which is not a sign store: add it to signs")
        one, two = params.signs[name], params.signs[other]
        if one.model_copy(update={"model": two.model}) != two:
            raise schema_error(key, f"names {other}, whose signs are made in another way than those of {name}")


def _check_stores_follow(params: "Params", key: str, instead: Mapping[str, str]) -> None:
    """Check that a run trains on the stores of the very models that attack in it."""
    for store in {source for model in params.robust.values() for source in model.sources}:
        wanted = instead.get(params.signs[store].model, params.signs[store].model)
        used = instead.get(store, store)
        if params.signs[used].model != wanted:
            raise schema_error(
                key,
                f"lets {wanted} attack but trains on {used}, signs of {params.signs[used].model}: let a store of "
                f"{wanted} stand for {store}",
            )


def _names_in_use(params: "Params") -> dict[str, str]:
    """Return every static model and store that is used under its own name, with a key that names it."""
    evaluation, analysis, blackbox = params.evaluation, params.analysis, params.blackbox
    naming = {
        **{f"robust.{name}.sources": model.sources for name, model in params.robust.items()},
        **{f"robust.{name}.init_from": [model.init_from] for name, model in params.robust.items() if model.init_from},
        "evaluation.holdout": [evaluation.holdout],
        "evaluation.targets": evaluation.targets,
        **{f"evaluation.attacks.{attack}": sources for attack, sources in evaluation.attacks.items()},
        "evaluation.battery.sources": evaluation.battery.sources if evaluation.battery else [],
        "evaluation.illustrated": evaluation.illustrated,
        "evaluation.diagnosed": evaluation.diagnosed,
        "analysis.models": analysis.models,
        "analysis.plane": [analysis.plane.model, analysis.plane.source] if analysis.plane else [],
        "blackbox.targets": blackbox.targets,
        "blackbox.forest.sources": blackbox.forest.sources if blackbox.forest else [],
    }
    return {name: key for key, names in naming.items() for name in names}
