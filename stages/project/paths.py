"""Places of all outputs, relative to the project's root."""

from pathlib import Path

from gradshard.pipeline.config.schema import Params
from gradshard.storage.errors import GradshardError

FINGERPRINT = Path("data/raw.json")
EVALUATION = Path("evaluation")
ANALYSIS = Path("analysis")
BLACKBOX = Path("blackbox")
REPORT = Path("report")
TRAINING = Path("training")
SOURCES = Path("sources")
DIGESTS = Path("digests")
# DVC depends on each as a whole, even if the parameters put nothing there.
SHARED_FOLDERS = (*(Path("models") / kind for kind in ("static", "robust", "snapshots")), Path("signs"))


def dataset(params: Params) -> Path:
    """Return the path of the prepared dataset."""
    return Path("data") / f"{params.dataset.name}.zarr"


def store(name: str) -> Path:
    """Return the path of a sign store."""
    return Path("signs") / f"{name}.zarr"


def sources(run: str) -> Path:
    """Return the file with the digests of the sign stores that a robust model is trained on in the run of a seed."""
    return SOURCES / f"{run}.json"


def evaluation(seed: int) -> Path:
    """Return the folder of the results of ``evaluate`` for a seed."""
    return EVALUATION / str(seed)


def analysis(seed: int) -> Path:
    """Return the folder of the results of ``analyze`` for a seed."""
    return ANALYSIS / str(seed)


def blackbox(seed: int) -> Path:
    """Return the folder of the results of ``blackbox`` for a seed."""
    return BLACKBOX / str(seed)


def training(run: str) -> tuple[Path, Path]:
    """Return the files of the metrics and the curves of a training run: of a static model, or NAME-SEED."""
    return TRAINING / f"{run}.json", TRAINING / f"{run}.tsv"


def static_weights(model: str) -> Path:
    """Return the weights file of a static model."""
    return Path("models/static") / f"{model}.safetensors"


def robust_weights(run: str) -> Path:
    """Return the weights file of a robust model trained with a seed, NAME-SEED."""
    return Path("models/robust") / f"{run}.safetensors"


def snapshots(run: str) -> Path:
    """Return the folder of the snapshots of a robust model trained with a seed, NAME-SEED."""
    return Path("models/snapshots") / run


def weights(params: Params, model: str, seed: int) -> Path:
    """Return the weights file of a static model, a robust model or a snapshot NAME@EPOCH in the run of a seed."""
    run, at, _ = params.in_run(model, seed).partition("@")
    if model in params.static:
        return static_weights(run)
    return snapshots(run) / f"{params.in_run(model, seed)}.safetensors" if at else robust_weights(run)


def existing_weights(params: Params, model: str, seed: int) -> Path:
    """Return the weights file of a model in the run of a seed, which must exist.

    Raises:
        GradshardError: the file is missing; the message says which stage makes it.
    """
    name = model.partition("@")[0]
    if name in params.static:
        return existing_static_weights(params.in_run(name, seed))
    return _existing(weights(params, model, seed), f"train-robust {name} --seed {seed}")


def existing_static_weights(model: str) -> Path:
    """Return the weights file of a static model, which must exist.

    Raises:
        GradshardError: the file is missing; the message says which stage makes it.
    """
    return _existing(static_weights(model), f"train-static {model}")


def _existing(path: Path, command: str) -> Path:
    if not path.exists():
        raise GradshardError(f"no weights at {path}: run `gradshard {command}` first, or `dvc pull` them")
    return path


def one_of(model: str, known: list[str], what: str) -> None:
    """Refuse a model name that the parameters do not have.

    Raises:
        GradshardError: the name is not among the known ones.
    """
    if model not in known:
        raise GradshardError(f"{model} is not {what} in the parameters: there are {', '.join(known) or 'none'}")
