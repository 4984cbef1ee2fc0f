"""The classifiers of the package torchvision, by its names.

A name is an architecture, ``resnet50``, or one with the name of its weights, ``resnet50.IMAGENET1K_V1``; without one,
the weights are torchvision's ``DEFAULT``. The weights also determine the normalisation. All models have three channels,
and grey images fill all of them.
"""

import contextlib
import difflib
import hashlib
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from gradshard.pipeline.models.first_pass import brief
from gradshard.pipeline.models.normalize import Normalised
from gradshard.pipeline.models.patches import check_patches
from gradshard.storage.errors import GradshardError
from gradshard.storage.optional import remedy

_CHANNELS = 3
_COUNTER = "num_batches_tracked"
# The options with which torchvision builds these models for pretrained weights; other models need none.
_WITHOUT_HEADS = {"aux_logits": False, "transform_input": True, "init_weights": True}
_HASH = re.compile(r"-([a-f0-9]+)\.\w+$")
# DenseNet's weights have layer names that are older than those in torchvision's code.
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d+)\.")


def build(name: str, sample_shape: tuple[int, int, int], classes: int, *, pretrained: bool = False) -> nn.Module:
    """Return a model with its normalisation inside.

    Args:
        name: the model's name in torchvision.
        sample_shape: (C, H, W) of an image; C is 3, or 1.
        classes: the number of logits.
        pretrained: whether it gets the weights of its name; torchvision fetches them, or takes them from its cache. For
            another number of classes, the classifier stays a new one.

    Raises:
        GradshardError: torchvision is not installed, has no such model, cannot build it for these images, or cannot
            fetch the weights.
    """
    architecture, weights = _found(name)
    channels, height, width = sample_shape
    if channels not in (1, _CHANNELS):
        raise GradshardError(
            f"torchvision:{name} takes images of {_CHANNELS} channels, or grey ones, but the dataset's have "
            f"{channels}: take another architecture"
        )
    options = _options(architecture, height, width)
    try:
        model = _torchvision().models.get_model(architecture, weights=None, num_classes=classes, **options)
    # A constructor can raise any exception for a size that it does not take.
    except Exception as error:
        raise GradshardError(
            f"torchvision cannot build {name} for images of {channels}x{height}x{width} ({brief(error)}): "
            f"{advice(name)}"
        ) from error
    if pretrained:
        _fill(model, name, _fetched(name, weights), classes)
    normalisation = weights.transforms()
    whole = Normalised(model, normalisation.mean, normalisation.std, channels=_CHANNELS)
    check_patches(whole, f"torchvision:{name}", sample_shape)
    return whole


def pretrained_classes(name: str) -> int:
    """Count the classes that the pretrained weights of a name tell apart.

    Raises:
        GradshardError: torchvision has no such model or weights.
    """
    _, weights = _found(name)
    return len(weights.meta["categories"])


def advice(name: str) -> str:
    """Return advice for images that a model does not take."""
    _, weights = _found(name)
    (size,) = weights.transforms().crop_size
    return f"it was made for {size}x{size} pixels; choose another dataset.size, or another architecture"


def provenance(name: str) -> Mapping[str, str]:
    """Return what determines a model besides its name: the version of torchvision.

    Raises:
        GradshardError: torchvision is not installed.
    """
    del name
    _torchvision()
    return {"torchvision": installed_version("torchvision")}


def _options(architecture: str, height: int, width: int) -> dict[str, Any]:
    if architecture in ("googlenet", "inception_v3"):
        return dict(_WITHOUT_HEADS)
    if architecture.startswith("vit_"):
        return {"image_size": height}
    return {"input_size": (height, width)} if architecture.startswith("maxvit") else {}


def _found(name: str) -> tuple[str, Any]:
    """Find the architecture and the weights of a name.

    Raises:
        GradshardError: torchvision has no such model, or no such weights of it.
    """
    models, (architecture, _, tag) = _torchvision().models, name.partition(".")
    known = models.list_models(module=models)
    if architecture not in known:
        close = difflib.get_close_matches(architecture, known, n=1)
        suggestion = f" (did you mean {close[0]}?)" if close else ""
        raise GradshardError(
            f"torchvision {installed_version('torchvision')} has no classifier {architecture}{suggestion}"
        )
    weights = models.get_model_weights(architecture)
    if (tag or "DEFAULT") not in weights.__members__:
        raise GradshardError(
            f"torchvision {installed_version('torchvision')} has no weights by the name {name}: there are "
            f"{', '.join(f'{architecture}.{member}' for member in weights.__members__)}"
        )
    return architecture, weights[tag or "DEFAULT"]


def _fetched(name: str, weights: Any) -> dict[str, Tensor]:
    """Return weights from torch's cache, or fetch them; no code in the file is run.

    Raises:
        GradshardError: the weights cannot be fetched, or the file in the cache is not theirs.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    expected = _HASH.search(file.name)
    # Torch checks the hash of a file that it fetches, but not of one that it finds in its cache.
    if file.is_file() and expected:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if not found.startswith(expected[1]):
            raise GradshardError(
                f"{file} is not the weights of torchvision:{name} (SHA-256 {found[:12]}…, its name says "
                f"{expected[1]}…): remove it, so that it is fetched again"
            )
    try:
        # Torch reports a download on the standard output.
        with contextlib.redirect_stdout(sys.stderr):
            state: dict[str, Tensor] = weights.get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
    # A download can raise any exception.
    except Exception as error:
        raise GradshardError(
            f"the pretrained weights of torchvision:{name} could not be fetched ({brief(error)}): check the network "
            f"and try again, or fetch {weights.url} elsewhere and put it into {file.parent}"
        ) from error
    return {_OLD_NAME.sub(r"\1\2.", key): tensor for key, tensor in state.items()}


def _fill(model: nn.Module, name: str, state: Mapping[str, Tensor], classes: int) -> None:
    """Load weights into a model, except those of a classifier for another number of classes.

    Raises:
        GradshardError: the weights do not fit the model as it was built.
    """
    theirs, taken = pretrained_classes(name), {}
    for key, own in model.state_dict().items():
        tensor = state.get(key)
        if tensor is None and key.endswith(_COUNTER):
            continue
        if tensor is not None and tensor.shape == own.shape:
            taken[key] = tensor
        elif tensor is None or classes == theirs or own.shape[:1] != (classes,) or tensor.shape[:1] != (theirs,):
            found = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
            raise GradshardError(
                f"the pretrained weights of torchvision:{name} do not fit the model for these images ({found} for "
                f"{key}, which has shape {tuple(own.shape)}): {advice(name)}"
            )
    model.load_state_dict(taken, strict=False)


def _torchvision() -> Any:
    try:
        import torchvision
    except ModuleNotFoundError as error:
        raise GradshardError(
            f"an architecture torchvision:NAME needs the package torchvision: {remedy('torchvision')}"
        ) from error
    return torchvision
