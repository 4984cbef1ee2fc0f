"""The models of the package timm (PyTorch Image Models), by its names.

A name is an architecture, ``inception_v3``, or one with the tag of its weights, ``inception_v3.tf_adv_in1k``; the tag
also determines the normalisation. Names that make timm fetch an architecture from elsewhere are refused.
"""

import difflib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from torch import nn

from gradshard.pipeline.models.normalize import Normalised
from gradshard.pipeline.models.tensorflow_pooling import pool_as_tensorflow
from gradshard.storage.errors import GradshardError
from gradshard.storage.optional import remedy


def build(name: str, sample_shape: tuple[int, int, int], classes: int, *, pretrained: bool = False) -> nn.Module:
    """Return a model with its normalisation inside.

    Args:
        name: the model's name in timm.
        sample_shape: (C, H, W) of an image.
        classes: the number of logits.
        pretrained: whether it gets the weights of its name; timm fetches them, or takes them from its cache.

    Raises:
        GradshardError: timm is not installed, has no such model, cannot build it for these images, or cannot fetch
            the weights.
    """
    timm, config = _timm(), _config(name)
    channels, height, width = sample_shape
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if config.fixed_input_size and tuple(config.input_size[1:]) != (height, width):
        options["img_size"] = (height, width)
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    # A constructor or a download can raise any exception.
    except Exception as error:
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if pretrained:
            raise GradshardError(
                f"the pretrained weights of timm:{name} could not be fetched ({problem}): check the network and try "
                "again, or fetch the file elsewhere and name it in weights"
            ) from error
        raise GradshardError(
            f"timm cannot build {name} for images of {channels}x{height}x{width} ({problem}): {advice(name)}"
        ) from error
    _check_patches(model, name, height, width)
    if name.startswith("inception_v3.tf_"):
        pool_as_tensorflow(model)
    return Normalised(model, config.mean, config.std, channels=channels)


def pretrained_classes(name: str) -> int:
    """Count the classes that the pretrained weights of a name tell apart.

    Raises:
        GradshardError: there are no such weights.
    """
    config = _config(name)
    if not config.has_weights:
        raise GradshardError(f"timm has no pretrained weights of {name}: name a file in weights, or random")
    return int(config.num_classes)


def advice(name: str) -> str:
    """Return advice for images that a model does not take."""
    size = _config(name).input_size[-1]
    return f"it was made for {size}x{size} pixels; choose another dataset.size, or another architecture"


def provenance(name: str) -> Mapping[str, str]:
    """Return what determines a model besides its name: the version of timm.

    Raises:
        GradshardError: timm is not installed.
    """
    del name
    return {"timm": version()}


def version() -> str:
    """Return the version of timm.

    Raises:
        GradshardError: timm is not installed.
    """
    try:
        return installed_version("timm")
    except PackageNotFoundError as error:
        raise _missing() from error


def _check_patches(model: nn.Module, name: str, height: int, width: int) -> None:
    """Check that no pixel is left over where images are cut into patches: no logit would depend on it.

    Raises:
        GradshardError: the image is no multiple of the patch, and the model does not pad.
    """
    cuts = [getattr(model, place, None) for place in ("patch_embed", "stem")]
    embedding = next((cut for cut in cuts if isinstance(cut, _timm().layers.PatchEmbed)), None)
    if embedding is None or embedding.dynamic_img_pad:
        return
    patch = embedding.patch_size
    if height % patch[0] or width % patch[1]:
        raise GradshardError(
            f"timm:{name} cuts images of {height}x{width} into patches of {patch[0]}x{patch[1]} and ignores the "
            f"{height * width - height // patch[0] * patch[0] * (width // patch[1] * patch[1])} pixels that are left "
            "over: choose a dataset.size that is a multiple of the patch, or another architecture"
        )


def _config(name: str) -> Any:
    """Return timm's configuration of the weights of a name, those of the default tag if the name has none.

    Raises:
        GradshardError: timm does not have the model, or not that tag.
    """
    timm = _timm()
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=1)
        suggestion = f" (did you mean {close[0]}?)" if close else ""
        raise GradshardError(f"timm {version()} has no model {architecture}{suggestion}")
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        known = [full for full in timm.list_models(f"{architecture}.*", include_tags=True) if "." in full]
        there = ", ".join(known) or "none, so that nothing says how it normalises"
        raise GradshardError(f"timm {version()} has no weights by the name {name}: there are {there}") from error


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise _missing() from error
    return timm


def _missing() -> GradshardError:
    return GradshardError(f"an architecture timm:NAME needs the package timm: {remedy('timm')}")
