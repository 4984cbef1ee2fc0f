"""The parameters: a typed schema of ``params.yaml``, checked as a whole before anything runs."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    ByteSize,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gradshard.pipeline.attacks.registry import ATTACKS
from gradshard.pipeline.config.dataset import DatasetParams
from gradshard.pipeline.config.errors import did_you_mean, explain_all, schema_error
from gradshard.pipeline.config.evaluation import AnalysisParams, AttackParams, BlackboxParams, EvaluationParams
from gradshard.pipeline.config.fields import (
    ModelName,
)
from gradshard.pipeline.config.names import same_file
from gradshard.pipeline.config.optimization import TrainingParams, check_optimization
from gradshard.pipeline.config.robust import check_adversarial_source, check_initial_weights, check_training
from gradshard.pipeline.config.section import Section, without_usual
from gradshard.pipeline.config.seeds import SeedList, StandIns, check_stand_ins, refuse_old_keys
from gradshard.pipeline.config.signs import SignsParams
from gradshard.pipeline.config.training import (
    AdversarialParams,
    RobustModel,
    StaticModel,
    StreamingParams,
)
from gradshard.pipeline.types import (
    BEST,
    DeviceName,
)
from gradshard.storage.errors import GradshardError

FILE_NAME = "params.yaml"


_OLD_GROUPS = ("self_only", "pair", "ensemble")


def _is_group(value: object) -> bool:
    return isinstance(value, dict) and "architecture" not in value


class Params(Section):
    """All parameters of the pipeline.

    ``memory`` limits the device memory for images on their way through models; by default it is a share of the
    device's.
    """

    profile: str
    device: DeviceName
    memory: Annotated[ByteSize, Field(gt=0)] | None = None
    dataset: DatasetParams
    training: TrainingParams
    static: dict[ModelName, StaticModel]
    signs: dict[ModelName, SignsParams]
    attack: AttackParams
    adversarial: AdversarialParams
    robust: dict[ModelName, RobustModel]
    seeds: SeedList
    stand_ins: StandIns
    streaming: StreamingParams
    evaluation: EvaluationParams
    analysis: AnalysisParams
    blackbox: BlackboxParams

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_usual(dump(self), {"memory": None})

    @property
    def models(self) -> list[str]:
        """All models, robust ones with their snapshots as NAME@EPOCH and, if rows are held back, as NAME@best."""
        snapshots = [f"{name}@{e}" for name, model in self.robust.items() for e in model.snapshots]
        best = [f"{name}@{BEST}" for name in self.robust] if self.adversarial.held_back else []
        return [*self.static, *self.robust, *snapshots, *best]

    def in_run(self, name: str, seed: int) -> str:
        """Return the name in files of a model, snapshot or store in the run of a seed: A_adv-10, A_adv-10@6, A-2."""
        base, at, epoch = name.partition("@")
        return f"{base}-{seed}{at}{epoch}" if base in self.robust else self.stand_ins.get(seed, {}).get(name, name)

    def for_model(self, name: str) -> "Params":
        """Return the parameters for one model: its own keys of ``training`` replace the general ones."""
        overrides = (self.static.get(name) or self.robust[name]).training
        rate = {"learning_rate": overrides.learning_rate} if "learning_rate" in overrides.model_fields_set else {}
        adversarial = self.adversarial.model_copy(update=rate)
        return self.model_copy(update={"training": self.training.overridden_by(overrides), "adversarial": adversarial})

    @property
    def runs(self) -> dict[str, tuple[str, int]]:
        """Every robust model's name and seed, once for each seed, by the name that files use."""
        return {self.in_run(name, seed): (name, seed) for name in self.robust for seed in self.seeds}

    def analysis_of(self, seed: int) -> AnalysisParams:
        """Return the analysis in the run of a seed: after the first seed, only models that change with the seed."""
        return self.analysis.model_copy(update={"models": self._measured_anew(self.analysis.models, seed)})

    def blackbox_of(self, seed: int) -> BlackboxParams:
        """Return this section in the run of a seed: after the first seed, only models that change with it."""
        blackbox, forest = self.blackbox, self.blackbox.forest
        if forest is not None:
            sources = self._measured_anew(forest.sources, seed)
            first = seed == self.seeds[0]
            forest = forest.model_copy(update={"sources": sources}) if sources or first else None
        targets = self._measured_anew(blackbox.targets, seed)
        return blackbox.model_copy(update={"targets": targets, "forest": forest})

    def _measured_anew(self, models: list[str], seed: int) -> list[str]:
        steady = () if seed == self.seeds[0] else self.steady
        return [name for name in models if name not in steady]

    @property
    def steady(self) -> list[str]:
        """The static models that are the same for every seed."""
        return [name for name in self.static if not any(name in instead for instead in self.stand_ins.values())]

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_robust()
        for name, static in self.static.items():
            check_adversarial_source(f"static.{name}", static)
        check_optimization("training", self.training)
        for section, models in (("static", self.static), ("robust", self.robust)):
            for name in models:
                check_optimization(f"{section}.{name}.training", self.for_model(name).training)
        for section, named in (("static", [*self.static, *self.runs]), ("signs", list(self.signs))):
            if (pair := same_file(named)) is not None:
                raise schema_error(
                    section, f"has {pair[0]} and {pair[1]}, which are one file on some disks: rename one"
                )
        for name in self.runs:
            if name in self.static:
                raise schema_error(f"static.{name}", "is what files call a robust model of one seed: rename it")
        for name, store in self.signs.items():
            if name in self.robust:
                raise schema_error(f"signs.{name}", "has the name of a robust model: give it a name of its own")
            self._check_names(f"signs.{name}.model", [store.model], list(self.static), "a static model")
        evaluation = self.evaluation
        self._check_names("evaluation.holdout", [evaluation.holdout], list(self.static), "a static model")
        self._check_names("evaluation.targets", evaluation.targets, self.models, "a model")
        self._check_names("evaluation.illustrated", evaluation.illustrated, self.models, "a model")
        self._check_names("evaluation.diagnosed", evaluation.diagnosed, self.models, "a model")
        self._check_names("analysis.models", self.analysis.models, self.models, "a model")
        if (baseline := self.analysis.baseline) is not None:
            self._check_names("analysis.baseline", [baseline], evaluation.targets, "a target (evaluation.targets)")
        if (plane := self.analysis.plane) is not None:
            self._check_names("analysis.plane.model", [plane.model], self.models, "a model")
            self._check_names("analysis.plane.source", [plane.source], self.models, "a model")
        self._check_names("blackbox.targets", self.blackbox.targets, self.models, "a model")
        if self.blackbox.forest is not None:
            self._check_names("blackbox.forest.sources", self.blackbox.forest.sources, self.models, "a model")
        if 0 not in evaluation.sweep or not all(0 <= epsilon <= 1 for epsilon in evaluation.sweep):
            raise schema_error("evaluation.sweep", "must hold 0, the clean images, and numbers from 0 to 1")
        known = [*ATTACKS, *self.attack.custom]
        self._check_names("evaluation.attacks", list(evaluation.attacks), known, "an attack")
        for attack, sources in evaluation.attacks.items():
            self._check_names(f"evaluation.attacks.{attack}", sources, self.models, "a model")
        if battery := evaluation.battery:
            self._check_names("evaluation.battery.sources", battery.sources, self.models, "a model")
            self._check_names("evaluation.battery.attacks", battery.attacks, known, "an attack")
            self._check_names("evaluation.battery.own", battery.own, known, "an attack")
        check_stand_ins(self)
        return self

    @field_validator("robust", mode="before")
    @classmethod
    def _refuse_old_forms(cls, robust: object) -> object:
        """Refuse parameters of an older gradshard, which grouped robust models by their number of stores."""
        grouped = [name for name in _OLD_GROUPS if isinstance(robust, dict) and _is_group(robust.get(name))]
        if grouped:
            raise schema_error(grouped[0], "is a group of gradshard 0.1: write its models directly below robust")
        refuse_old_keys(robust)
        return robust

    def _check_robust(self) -> None:
        for name, model in self.robust.items():
            key = f"robust.{name}"
            if name in self.static:
                raise schema_error(key, "is the name of another model; give it a name of its own")
            models_of = [self.signs[s].model if s in self.signs else s for s in model.sources]
            if self.evaluation.holdout in models_of:
                raise schema_error(
                    f"{key}.sources",
                    f"names the holdout {self.evaluation.holdout}, which no training may see: remove it there or "
                    "choose another evaluation.holdout",
                )
            self._check_names(f"{key}.sources", model.sources, list(self.signs), "a sign store")
            check_training(key, model, self.adversarial)
            begun_with = [model.init_from] if model.init_from is not None else []
            self._check_names(f"{key}.init_from", begun_with, list(self.static), "a static model")
            check_initial_weights(key, model, self.static, self.evaluation.holdout)
            late = [epoch for epoch in model.snapshots if epoch > model.epochs]
            if late:
                raise schema_error(
                    f"{key}.snapshots", f"must not come after the last epoch, {model.epochs}, but has {late[0]}"
                )

    @staticmethod
    def _check_names(key: str, names: list[str], known: list[str], what: str) -> None:
        for name in names:
            if name not in known:
                raise schema_error(key, f"names {name}, which is not {what}{did_you_mean(name, known)}")
        if len(set(names)) < len(names):
            raise schema_error(key, "names one model twice")


def read_params(path: Path) -> Params:
    """Read and check a parameter file.

    Raises:
        GradshardError: it is missing, is not YAML, or does not fit the schema; the message names the key.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GradshardError(
            f"no parameter file {path}: run this in the project's root, or name it with --params"
        ) from error
    # For a value such as the date 2024-13-45 the parser raises Python's own error.
    except (YAMLError, ValueError, KeyError, RecursionError) as error:
        raise GradshardError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return check_params(content, where=str(path))


def check_params(content: object, *, where: str) -> Params:
    """Check parameters given as plain dictionaries and lists.

    Raises:
        GradshardError: they do not fit the schema; the message names ``where`` and the key.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise GradshardError(f"{where}: {explain_all(error.errors(), Params, content)}") from error
