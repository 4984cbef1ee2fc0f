"""Image classifiers of the package transformers, by the folder that ``save_pretrained`` wrote or by a name on the hub.

The folder's ``config.json`` says which architecture it is, its ``preprocessor_config.json`` how the model normalises,
and ``model.safetensors`` holds the weights. No code of a folder runs, and nothing is unpickled.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Any

import torch
from torch import Tensor, nn

from gradshard.pipeline.models.first_pass import brief
from gradshard.pipeline.models.normalize import Normalised
from gradshard.pipeline.models.patches import check_patches
from gradshard.storage.errors import GradshardError
from gradshard.storage.home import path_of
from gradshard.storage.optional import remedy

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Names that a manifest takes for an architecture when hf: is put before them.
_NAME = re.compile(r"[\w.@:+/ ()~-]{1,97}")
_BYTE = 255.0
# Keys of a config that say nothing about the model.
_NOT_THE_MODEL = ("_name_or_path", "transformers_version")


class LogitsOf(nn.Module):
    """A model whose logits are the attribute ``logits`` of its output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of normalised images, (N, C, H, W)."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def build(name: str, sample_shape: tuple[int, int, int], classes: int, *, pretrained: bool = False) -> nn.Module:
    """Return a model that gives logits, with its normalisation inside.

    Args:
        name: a folder, or a name on the hub.
        sample_shape: (C, H, W) of an image; grey ones fill a model's three channels.
        classes: the number of logits.
        pretrained: whether it gets the weights of that name; for another number of classes, the classifier is new.

    Raises:
        GradshardError: transformers is not installed, or the name is not that of a classifier for these images.
    """
    place = _place(name)
    config, (mean, std) = _config(place), _normalisation(place)
    channels, height, width = sample_shape
    theirs = int(getattr(config, "num_channels", channels))
    if channels not in (1, theirs):
        raise GradshardError(
            f"hf:{name} takes images of {theirs} channels, but the dataset's have {channels}: take another architecture"
        )
    is_theirs = config.num_labels == classes
    config.num_labels = classes
    if hasattr(config, "image_size"):
        config.image_size = height if height == width else (height, width)
    with _quiet():
        model = _filled(place, config, new_classifier=not is_theirs) if pretrained else _fresh(place, config)
    whole = Normalised(LogitsOf(model), mean, std, channels=theirs)
    check_patches(whole, f"hf:{name}", sample_shape)
    return whole


def pretrained_classes(name: str) -> int:
    """Count the classes that the weights of a folder tell apart.

    Raises:
        GradshardError: the name is not that of a classifier.
    """
    return int(_config(_place(name)).num_labels)


def advice(name: str) -> str:
    """Return advice for images that a model does not take."""
    size = getattr(_config(_place(name)), "image_size", None)
    made = f"it was made for images of {size} pixels; " if size else ""
    return f"{made}choose another dataset.size, or another architecture"


def provenance(name: str) -> Mapping[str, str]:
    """Return what determines a model besides its name: transformers' version, and the digest of its configuration.

    Raises:
        GradshardError: transformers is not installed, or nothing has this name.
    """
    place = _place(name)
    config = {key: value for key, value in _config(place).to_dict().items() if key not in _NOT_THE_MODEL}
    text = json.dumps([config, *_normalisation(place)], sort_keys=True, default=str)
    return {"transformers": installed_version("transformers"), "config": hashlib.sha256(text.encode()).hexdigest()}


@dataclass(frozen=True)
class _Place:
    """A folder, or a name on the hub."""

    name: str
    source: str
    is_local: bool

    @property
    def options(self) -> dict[str, Any]:
        """The options of every load, which let no code of the folder run."""
        return {"trust_remote_code": False, "local_files_only": self.is_local}

    def failed(self, what: str, error: Exception) -> GradshardError:
        """Return the error that ``what`` cannot be loaded."""
        there = (
            "save the model and its image processor there by save_pretrained"
            if self.is_local
            else f"there is no folder {self.source} here, so it was looked for on the hub: name a folder, or check the "
            "name and the network"
        )
        return GradshardError(f"hf:{self.name} gives no {what} ({brief(error)}): {there}")


def _place(name: str) -> _Place:
    path = path_of(name)
    if not _NAME.fullmatch(name):
        raise GradshardError(
            f"hf:{name[:60]}… cannot name a model, for it is longer than 97 characters or has unusual ones: give the "
            "folder's path as seen from the project's root"
        )
    if path.is_dir():
        return _Place(name, str(path), is_local=True)
    if not _HUB_NAME.fullmatch(name):
        raise GradshardError(f"architecture hf:{name}: there is no folder {path}: name that of a model's config.json")
    return _Place(name, name, is_local=False)


def _config(place: _Place) -> Any:
    transformers = _transformers()
    try:
        with _quiet():
            return transformers.AutoConfig.from_pretrained(place.source, **place.options)
    # Reading or fetching a stranger's file can raise any exception.
    except Exception as error:
        raise place.failed("config.json of a model that transformers knows", error) from error


def _normalisation(place: _Place) -> tuple[Sequence[float], Sequence[float]]:
    """Return the image processor's mean and standard deviation, converted to pixels in [0, 1].

    Raises:
        GradshardError: there is no image processor, or it changes pixels in another way.
    """
    transformers = _transformers()
    try:
        with _quiet():
            processor = transformers.AutoImageProcessor.from_pretrained(place.source, **place.options)
    except Exception as error:
        raise place.failed("image processor, which says how the model normalises", error) from error
    # Without scaling, the model was made for pixels from 0 to 255.
    factor = float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 1.0
    if getattr(processor, "rescale_offset", False):
        raise GradshardError(f"hf:{place.name} moves pixels by an offset before it normalises: that is not known here")
    if not getattr(processor, "do_normalize", False):
        return [0.0], [1 / (_BYTE * factor)]
    mean, std = (_numbers(getattr(processor, key, None)) for key in ("image_mean", "image_std"))
    if not mean or not std:
        raise GradshardError(f"hf:{place.name} has no image_mean and image_std in its image processor: save them there")
    return [value / (_BYTE * factor) for value in mean], [value / (_BYTE * factor) for value in std]


def _numbers(found: float | Sequence[float] | None) -> list[float]:
    return [] if found is None else [float(found)] if isinstance(found, int | float) else [float(v) for v in found]


def _fresh(place: _Place, config: Any) -> nn.Module:
    """Return a model with new parameters, which torch's default generator draws."""
    try:
        model: nn.Module = _transformers().AutoModelForImageClassification.from_config(
            config, attn_implementation="eager", dtype=torch.float32, trust_remote_code=False
        )
    except Exception as error:
        raise place.failed("image classifier for these images", error) from error
    return model


def _filled(place: _Place, config: Any, *, new_classifier: bool) -> nn.Module:
    """Return a model with the weights of a safetensors file, except those of the classifier if ``new_classifier``.

    Raises:
        GradshardError: there is no such file, or it does not hold this model.
    """
    try:
        model, report = _transformers().AutoModelForImageClassification.from_pretrained(
            place.source,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            attn_implementation="eager",
            dtype=torch.float32,
            **place.options,
        )
    except Exception as error:
        raise place.failed("weights in safetensors for these images", error) from error
    wrong = {name for name, *_ in report["mismatched_keys"]} | set(report["missing_keys"])
    if new_classifier:
        wrong -= _of_the_classifier(config)
    if wrong:
        raise GradshardError(
            f"the weights of hf:{place.name} lack {len(wrong)} tensors of the model for these images, or have them in "
            f"another shape, such as {min(wrong)}: {advice(place.name)}"
        )
    found: nn.Module = model
    return found


def _of_the_classifier(config: Any) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    shapes = []
    for more in (0, 1):
        other = type(config).from_dict(config.to_dict())
        other.num_labels = config.num_labels + more
        with torch.device("meta"):
            model = _transformers().AutoModelForImageClassification.from_config(other, attn_implementation="eager")
        shapes.append({name: tensor.shape for name, tensor in model.state_dict().items()})
    return {name for name, shape in shapes[0].items() if shapes[1][name] != shape}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and reports of transformers; gradshard reports errors itself."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise GradshardError(
            f"an architecture hf:FOLDER needs the package transformers: {remedy('transformers')}"
        ) from error
    return transformers
