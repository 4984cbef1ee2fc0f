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
# DVC depends on them as a whole, also where the parameters put nothing there.
SHARED_FOLDERS = (*(Path("models") / kind for kind in ("static", "robust", "snapshots")), Path("signs"))


def dataset(params: Params) -> Path:
    """The prepared dataset."""
    return Path("data") / f"{params.dataset.name}.zarr"


def store(name: str) -> Path:
    """A sign store."""
    return Path("signs") / f"{name}.zarr"


def sources(model: str) -> Path:
    """The file with the digests of a robust model's sign stores."""
    return SOURCES / f"{model}.json"


def training(model: str) -> tuple[Path, Path]:
    """The metrics and the curves of a model's training."""
    return TRAINING / f"{model}.json", TRAINING / f"{model}.tsv"


def weights(params: Params, model: str) -> Path:
    """The weights of a static or robust model, or of a robust model's snapshot NAME@EPOCH."""
    if model in params.static:
        return Path("models/static") / f"{model}.safetensors"
    if model in params.robust:
        return Path("models/robust") / f"{model}.safetensors"
    return snapshots(model.rpartition("@")[0]) / f"{model}.safetensors"


def snapshots(model: str) -> Path:
    """The folder of a robust model's snapshots."""
    return Path("models/snapshots") / model


def one_of(model: str, known: list[str], what: str) -> None:
    """Refuse a model name that the parameters do not have.

    Raises:
        GradshardError: the name is not among the known ones.
    """
    if model not in known:
        raise GradshardError(f"{model} is not {what} in the parameters: there are {', '.join(known) or 'none'}")
