"""Signs as a tensor that torchvision's transforms move as they move the image: a mask of -1, 0 and +1.

Crops, flips and padding move signs with their pixels; outside of the image a sign is 0. Changes of colour move no pixel
and leave signs alone. Transforms that mix pixels, such as resizing and rotating, have no meaning for signs and are
refused.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from gradshard.pipeline.models.first_pass import brief
from gradshard.storage.errors import GradshardError

Key = TypeVar("Key", bound=Hashable)

_MIXING = ("resize", "resized_crop", "rotate", "affine", "perspective", "elastic")
_TURNING_ROUND = ("invert", "solarize")
_REMEDY = "keep to crops, flips, padding and changes of colour"


class Signs(tv_tensors.Mask):  # type: ignore[misc]
    """Signs int8 (C, H, W), to be transformed beside their image."""


def moved(transform: Callable[[Any], Any], image: Tensor, signs: dict[Key, Tensor]) -> tuple[Any, dict[Key, Tensor]]:
    """Return the views of an image and its signs under one draw of a transform of torchvision's v2.

    Args:
        transform: takes a pair of an image and a mapping of masks.
        image: (C, H, W).
        signs: int8 (C, H, W), by any keys.

    Raises:
        GradshardError: the transform mixes pixels, treats image and signs differently, takes no masks, or normalises.
    """
    wrapped = {source: Signs(values) for source, values in signs.items()}
    try:
        image, found = transform((tv_tensors.Image(image), wrapped))
    except GradshardError:
        raise
    # User code can raise any exception.
    except Exception as error:
        if "are not supported by" in str(error):
            name = str(error).rsplit(" ", 1)[-1].removesuffix("()")
            raise GradshardError(f"augment= uses {name}, which takes no masks beside an image: {_REMEDY}") from error
        raise GradshardError(
            f"augment= does not take a pair of an image and its signs ({brief(error)}): use transforms of "
            "torchvision.transforms.v2 (the older ones take an image alone)"
        ) from error
    if not isinstance(image, Tensor):
        raise GradshardError(
            f"augment= turns the image into {type(image).__name__}, in which epsilon has no unit: let it give a tensor"
        )
    for values in found.values():
        if not isinstance(values, Tensor) or values.shape != image.shape or not _are_signs(values):
            raise GradshardError(
                "augment= changed the image's shape and not that of its signs, or made other values of them: use "
                "transforms of torchvision.transforms.v2 that take images and masks alike"
            )
    if image.is_floating_point() and not (image.min() >= 0 and image.max() <= 1):
        raise GradshardError(
            "augment= gives pixels outside of [0, 1], as a normalisation does: normalise after the perturbation, so "
            "that epsilon means pixels"
        )
    return image.as_subclass(Tensor), {source: values.as_subclass(Tensor) for source, values in found.items()}


def _are_signs(values: Tensor) -> bool:
    return values.dtype == torch.int8 and bool(values.min() >= -1) and bool(values.max() <= 1)


def _refuse(name: str, why: str) -> None:
    def kernel(signs: Signs, *arguments: Any, **options: Any) -> Signs:
        del signs, arguments, options
        raise GradshardError(f"augment= uses {name}, {why}: {_REMEDY}")

    functional.register_kernel(name, Signs)(kernel)


for _name in _MIXING:
    _refuse(_name, "which mixes pixels, and a mixture of signs is no sign of anything")
for _name in _TURNING_ROUND:
    _refuse(_name, "which turns pixels round, so that their stored signs point the wrong way")


@functional.register_kernel("pad", Signs)  # type: ignore[untyped-decorator]
def _pad(signs: Signs, padding: Any, fill: Any = None, padding_mode: str = "constant") -> Signs:
    """Pad with 0, whatever colour the image is padded with."""
    del fill
    padded = functional.pad_mask(signs.as_subclass(Tensor), padding, fill=0, padding_mode=padding_mode)
    return Signs(padded)


@functional.register_kernel("permute_channels", Signs)  # type: ignore[untyped-decorator]
def _permute_channels(signs: Signs, permutation: list[int]) -> Signs:
    """Move the signs of a channel where the channel goes."""
    return Signs(signs.as_subclass(Tensor)[permutation])
