"""The parameters: a typed schema of ``params.yaml``, checked as a whole before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gradshard.pipeline.attacks.registry import ATTACKS
from gradshard.pipeline.config.errors import did_you_mean, explain, schema_error
from gradshard.pipeline.config.fields import (
    Arguments,
    FolderName,
    Label,
    ModelName,
    Pixels,
    PlainName,
    Reference,
    word,
)
from gradshard.pipeline.config.names import same_file
from gradshard.pipeline.types import (
    CLEAN,
    PRETRAINED,
    RANDOM,
    WORST_CASE,
    ArrayLayout,
    BatchNorm,
    BrokenPolicy,
    Compilation,
    DeviceName,
    EpsilonDistribution,
    EvaluationLabel,
    Gradient,
    Interpolation,
    Mode,
    Objective,
    OptimizerName,
    Output,
    Precision,
    RowOrder,
    ScheduleKind,
    StorePrecision,
    TrainingAttack,
)
from gradshard.storage.errors import GradshardError
from gradshard.storage.ingest.registry import DATASETS

FILE_NAME = "params.yaml"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# The datasets that a key of ``dataset`` is for, where it is not for all that gradshard knows; and the keys of your own.
_FOR_FOLDERS = ("size", "crop", "interpolation", "broken", "train", "test", "class_names")
_FOR: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_FOR_FOLDERS, ("imagefolder",)),
    "seed": ("imagefolder", "idx", "npz"),
    "order": ("idx", "npz"),
    "layout": ("npz",),
    "scale": ("npz",),
}
_OF_YOUR_OWN = ("name", "call", "arguments", "classes", "order", "seed")


class DatasetParams(_Section):
    """Labelled images; ``path`` is the folder (npz: the file) of the raw data, ``classes`` overrides counting.

    For ``imagefolder``: images become ``size`` x ``size`` pixels, of whose shorter side ``crop`` is kept; ``train`` and
    ``test`` are the subfolders (train: none for no training images; test: by default val or test); ``class_names`` is a
    file of the classes in the order of their labels, by default the sorted folders; ``seed`` is of the order of the
    rows. For ``idx`` and ``npz``: ``order`` says whether rows are shuffled, by ``seed``; ``auto`` does where they are
    sorted by class. For ``npz``: ``layout`` says where the channels are, and ``scale`` makes the numbers 0 to 255.

    One of your own has another name and is made by your package.module:function, ``call``, from ``arguments``.
    """

    name: PlainName
    call: Reference | None = None
    arguments: Arguments = Field(default_factory=dict)
    path: str | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    size: PositiveInt | None = None
    crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    interpolation: Interpolation = "bicubic"
    broken: BrokenPolicy = "fail"
    train: FolderName | None = "train"
    test: FolderName | None = None
    class_names: str | None = None
    seed: NonNegativeInt = 0
    order: RowOrder = "auto"
    layout: ArrayLayout | None = None
    scale: PositiveFloat | None = None

    @model_serializer(mode="wrap")
    def _without_what_does_not_apply(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        return {key: dumped[key] for key in dumped if self._is_for(key)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.call is not None and self.name in DATASETS:
            raise schema_error("name", f"is {self.name}, another dataset's: give that of call a name of its own")
        if self.call is None and self.name not in DATASETS:
            meant = did_you_mean(self.name, list(DATASETS))
            raise schema_error("name", f"is {self.name}, which is no dataset{meant}; your own needs call")
        for key in sorted(self.model_fields_set - {"call"}):
            if not self._is_for(key):
                raise schema_error(key, self._not_for(key))
        if self.name == "imagefolder":
            if self.size is None:
                raise schema_error("size", "is missing: how many pixels high and wide the images shall be, such as 299")
            if self.classes is not None:
                raise schema_error("classes", "is for other datasets: the folders are the classes, or name class_names")
        return self

    def _is_for(self, key: str) -> bool:
        if self.call is not None:
            return key in _OF_YOUR_OWN
        return key not in ("call", "arguments") and (key not in _FOR or self.name in _FOR[key])

    def _not_for(self, key: str) -> str:
        if self.call is not None:
            return "is not for a dataset that call makes: give it in arguments"
        if key == "arguments":
            return "is for a dataset of your own, which call makes: remove it"
        return f"is for dataset.name {' or '.join(_FOR[key])}, not {self.name}: remove it"


class AugmentationParams(_Section):
    """Random crops of images padded by ``padding`` pixels, and mirror images if ``flip``."""

    padding: NonNegativeInt = 0
    flip: bool = False


class TrainingParams(_Section):
    """Training of every model, robust ones at the learning rate of ``adversarial``.

    The learning rate is multiplied by ``decay`` after every ``decay_epochs`` epochs. ``compile`` says whether torch
    compiles the model; ``batch_norm`` whose statistics batch normalisation takes when several processes train.
    """

    batch: PositiveInt
    learning_rate: PositiveFloat
    precision: Precision
    optimizer: OptimizerName = "adam"
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    decay_epochs: PositiveInt = 1
    augment: AugmentationParams = Field(default_factory=AugmentationParams)
    compilation: Compilation = Field(alias="compile", default="auto")
    batch_norm: BatchNorm = "per_rank"


class StaticModel(_Section):
    """A static model, trained on clean data for some epochs; with 0, its weights are taken as they are.

    ``weights`` are those it begins with: ``random``, by the seed; ``pretrained``, those of a name timm:NAME; or a
    checkpoint's path, in which ``weights_key`` says where they lie if there are several. ``output`` says what its
    forward gives: of ``probabilities`` the logarithm is taken.
    """

    architecture: str
    epochs: NonNegativeInt
    seed: NonNegativeInt = 0
    weights: Annotated[str, Field(min_length=1)] = RANDOM
    weights_key: Annotated[str, Field(min_length=1)] | None = None
    output: Output = "logits"

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        usual = {"weights_key": None, "output": "logits"}
        return {key: value for key, value in dumped.items() if key not in usual or value != usual[key]}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.epochs and "weights" not in self.model_fields_set:
            raise schema_error(
                "epochs",
                "is 0, which takes weights as they are: name some in weights (pretrained, a checkpoint, or random for "
                "an untrained model), or give a number of epochs",
            )
        if self.weights_key is not None and self.weights in (RANDOM, PRETRAINED):
            raise schema_error("weights_key", f"is for a checkpoint, not for {self.weights} weights: remove it")
        if self.output != "logits" and self.weights == PRETRAINED:
            raise schema_error("output", "is probabilities, but pretrained models give logits: remove it")
        return self


class SignsParams(_Section):
    """A sign store: whose gradients it holds the signs of, of which loss, for whose label; an SPDX licence, if any.

    ``precision`` is the arithmetic that the gradients are computed in; ``zero_rows`` the largest share of images that
    may have a gradient of 0 in every pixel, which no attack can follow.
    """

    model: ModelName
    gradient: Gradient
    label: Label
    precision: StorePrecision = "fp32"
    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,60}$")] | None = None
    zero_rows: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_serializer(mode="wrap")
    def _without_what_no_sign_follows_from(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        return {key: value for key, value in dumped.items() if key != "zero_rows"}


class CustomAttack(_Section):
    """An attack from elsewhere: a library's, such as torchattacks:DIFGSM, or your own package.module:function.

    ``arguments`` are its own keywords, besides the radius, which it is given ``attack.eps`` for.
    """

    call: Reference
    arguments: Arguments = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.arguments:
            if name in ("eps", "epsilon", "epsilons"):
                raise schema_error(f"arguments.{name}", "is given by attack.eps, the same for all attacks: remove it")
        return self


class AttackParams(_Section):
    """Epsilon, in pixel units, for training and evaluation; the rest is for evaluation.

    RAND+FGSM's alpha; the steps of I-FGSM and MI-FGSM; the steps and random starts of PGD and C&W; and attacks from
    elsewhere, by the names that ``evaluation.attacks`` and the results call them.
    """

    epsilon: Pixels = Field(alias="eps")
    alpha: Pixels
    steps: PositiveInt
    pgd_steps: PositiveInt
    restarts: PositiveInt
    custom: dict[PlainName, CustomAttack] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        return {key: dumped[key] for key in dumped if key != "custom" or self.custom}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.custom:
            if name in ATTACKS or name in (CLEAN, WORST_CASE):
                raise schema_error(f"custom.{name}", "has the name of another attack: give it a name of its own")
        if not 0 < self.epsilon <= 1:
            raise schema_error("eps", f"must be above 0 and at most 1 (pixels lie in [0, 1]), but is {self.epsilon}")
        if not 0 < self.alpha < self.epsilon:
            raise schema_error("alpha", f"must be above 0 and below eps ({self.epsilon}), but is {self.alpha}")
        return self


class AdversarialParams(_Section):
    """Training of every robust model: the objective, the live gradient, and who crafts each batch.

    ``objective`` ``both`` weighs clean and perturbed images by ``clean_weight``; ``half`` replaces every second image,
    whose loss weighs ``adversarial_weight`` against 1. ``epsilon_law`` ``truncated_normal`` draws epsilon for every
    example.
    """

    learning_rate: PositiveFloat
    clean_weight: Annotated[float, Field(ge=0, le=1)]
    gradient: Gradient
    label: Label
    live_mode: Mode
    schedule: ScheduleKind
    objective: Objective = "both"
    adversarial_weight: PositiveFloat = 1.0
    epsilon_law: EpsilonDistribution = "fixed"


class RobustModel(_Section):
    """A robust model; its sources are the model itself and any number of sign stores (none: adversarial training).

    ``attack`` is what it perturbs with (rand_fgsm needs a live gradient for every batch, so no sources);
    ``gradient`` overrides that of ``adversarial``; ``run_of`` names the model that this one repeats with another seed.
    """

    architecture: str
    sources: list[ModelName] = Field(default_factory=list)
    epochs: PositiveInt
    snapshots: list[PositiveInt] = Field(default_factory=list)
    seed: NonNegativeInt = 0
    attack: TrainingAttack = "fgsm"
    gradient: Gradient | None = None
    run_of: ModelName | None = None


class StreamingParams(_Section):
    """Up to ``memory``, images and stores are kept in memory; beyond, they pass through in windows."""

    memory: ByteSize


class EvaluationParams(_Section):
    """Targets, attacks and sources; ``holdout`` is the static model that no training saw.

    ``illustrated`` models get their signed gradients shown in the report. ``diagnosed`` models are probed for a masked
    gradient, FGSM's epsilon running through ``sweep``, in pixel units.

    ``label`` is whose label the paper's attacks are about, ``top`` in how many of the first classes the true one may
    be. Of a test set larger than ``sample``, so many random images are attacked; clean images and each model's own FGSM
    are still measured on all (table 5).
    """

    holdout: ModelName
    targets: list[str]
    attacks: dict[str, list[str]]
    gradients: list[Gradient]
    illustrated: list[str]
    diagnosed: list[str]
    sweep: list[Pixels]
    seed: NonNegativeInt = 0
    label: Annotated[EvaluationLabel, BeforeValidator(word)] = "true"
    top: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default_factory=lambda: [1])
    sample: PositiveInt | None = None


class PlaneParams(_Section):
    """Figures 2 and 3: the loss of ``model`` over its own signed gradient and that of ``source``, at some points."""

    model: str
    source: str
    points: PositiveInt


class AnalysisParams(_Section):
    """Models whose gradients are measured, on how many test examples against float64, and where the loss is mapped.

    ``tables`` are your own for the report, each made by a package.module:function from the error matrix.
    """

    models: list[str]
    examples: PositiveInt
    plane: PlaneParams
    tables: list[Reference] = Field(default_factory=list)


class SubstituteParams(_Section):
    """The adversary who asks for labels: a substitute of an architecture, from so many images of its own.

    In each of ``rounds`` it is trained anew for ``epochs``, and its images are moved by ``step`` along its Jacobian
    and asked for too, up to ``limit`` images in all.
    """

    architecture: str
    images: PositiveInt
    rounds: PositiveInt
    epochs: PositiveInt
    step: Pixels
    limit: PositiveInt
    seed: NonNegativeInt


class EstimationParams(_Section):
    """The adversary who asks for confidences: differences of ``delta`` over groups of pixels, on some examples."""

    examples: PositiveInt
    delta: Annotated[Pixels, Field(gt=0, le=1)]
    groups: list[PositiveInt]
    seed: NonNegativeInt


class ForestParams(_Section):
    """A random forest, and whose examples are tried on it."""

    trees: PositiveInt
    sources: list[str]
    seed: NonNegativeInt


class BlackboxParams(_Section):
    """Adversaries who may ask ``targets``, tried on ``examples`` test images; and a random forest, if wanted.

    A forest holds all training images in memory.
    """

    targets: list[str]
    examples: PositiveInt
    substitute: SubstituteParams
    estimation: EstimationParams
    forest: ForestParams | None = None


_OLD_GROUPS = ("self_only", "pair", "ensemble")


def _is_group(value: object) -> bool:
    return isinstance(value, dict) and "architecture" not in value


class Params(_Section):
    """All parameters of the pipeline."""

    profile: str
    device: DeviceName
    dataset: DatasetParams
    training: TrainingParams
    static: dict[ModelName, StaticModel]
    signs: dict[ModelName, SignsParams]
    attack: AttackParams
    adversarial: AdversarialParams
    robust: dict[ModelName, RobustModel]
    streaming: StreamingParams
    evaluation: EvaluationParams
    analysis: AnalysisParams
    blackbox: BlackboxParams

    @property
    def models(self) -> list[str]:
        """Every model there will be, robust ones with their snapshots as NAME@EPOCH."""
        snapshots = [f"{name}@{e}" for name, model in self.robust.items() for e in model.snapshots]
        return [*self.static, *self.robust, *snapshots]

    @property
    def repeats(self) -> dict[str, str]:
        """The models that repeat another with a new seed, by that other's name; snapshots among them."""
        return {
            name: "@".join([first, *epoch])
            for name in self.models
            for base, *epoch in [name.split("@")]
            if base in self.robust and (first := self.robust[base].run_of) is not None
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_robust()
        for section, named in (("static", [*self.static, *self.robust]), ("signs", list(self.signs))):
            if (pair := same_file(named)) is not None:
                raise schema_error(
                    section, f"has {pair[0]} and {pair[1]}, which are one file on some disks: rename one"
                )
        for name, store in self.signs.items():
            self._check_names(f"signs.{name}.model", [store.model], list(self.static), "a static model")
        evaluation = self.evaluation
        self._check_names("evaluation.holdout", [evaluation.holdout], list(self.static), "a static model")
        self._check_names("evaluation.targets", evaluation.targets, self.models, "a model")
        self._check_names("evaluation.illustrated", evaluation.illustrated, self.models, "a model")
        self._check_names("evaluation.diagnosed", evaluation.diagnosed, self.models, "a model")
        plane = self.analysis.plane
        self._check_names("analysis.models", self.analysis.models, self.models, "a model")
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
        return self

    @field_validator("robust", mode="before")
    @classmethod
    def _refuse_groups(cls, robust: object) -> object:
        """Tell who has parameters of gradshard 0.1, which grouped robust models by their number of stores."""
        grouped = [name for name in _OLD_GROUPS if isinstance(robust, dict) and _is_group(robust.get(name))]
        if grouped:
            raise schema_error(grouped[0], "is a group of gradshard 0.1: write its models directly below robust")
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
            if model.attack != "fgsm" and model.sources:
                raise schema_error(
                    f"{key}.attack", f"is {model.attack}, which no stored sign serves: leave sources empty"
                )
            if model.run_of is not None:
                alike = [other for other, its in self.robust.items() if other != name and its.sources == model.sources]
                self._check_names(f"{key}.run_of", [model.run_of], alike, "a robust model with the same sources")
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
        GradshardError: it is missing, no YAML, or does not fit the schema; the sentence names the key.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GradshardError(
            f"no parameter file {path}: run this in the project's root, or name it with --params"
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise GradshardError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return check_params(content, where=str(path))


def check_params(content: object, *, where: str) -> Params:
    """Check parameters given as plain dictionaries and lists.

    Raises:
        GradshardError: they do not fit the schema; the sentence names ``where`` and the key.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise GradshardError(f"{where}: {explain(error.errors()[0], Params)}") from error
