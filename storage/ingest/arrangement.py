"""Place of the channels of raw images: before height and width, after them, or absent."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError

Shape = tuple[int, ...]
Arrange = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

# Grey, grey and alpha, colours, colours and alpha. More are possible, but then ``layout`` must be given.
_LIKELY_CHANNELS = range(1, 5)
_CHANNEL_AXIS = {"chw": 1, "hwc": 3}


def arrangement(shapes: Mapping[str, Shape], *, layout: str | None, where: object) -> Arrange:
    """Return a function that makes images (n, C, H, W), in the only way that the arrays of all splits allow.

    Args:
        shapes: (N, H, W), (N, C, H, W) or (N, H, W, C), by the name of the array.
        layout: ``chw`` or ``hwc`` where it is known.
        where: the file, for errors.

    Raises:
        GradshardError: an array is not a stack of images, or it is not clear which axis is that of the channels.
    """
    named = " and ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
    (dimensions, *others) = {len(shape) for shape in shapes.values()}
    if others or dimensions not in (3, 4):
        raise GradshardError(f"{where}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W) everywhere, not {named}")
    if any(0 in shape[1:] for shape in shapes.values()):
        raise GradshardError(f"{where}: images without pixels make no dataset: {named}")
    if dimensions == 3:
        return lambda images: images[:, None]
    likely = [name for name, axis in _CHANNEL_AXIS.items() if all(s[axis] in _LIKELY_CHANNELS for s in shapes.values())]
    if layout is None and len(likely) != 1:
        problem = "may have their channels first or last" if likely else "do not all have 1 to 4 channels on one axis"
        raise GradshardError(
            f"{where}: {named} {problem}: set dataset.layout to chw (channels first) or hwc (channels last)"
        )
    if (layout or likely[0]) == "chw":
        return lambda images: images
    return lambda images: np.ascontiguousarray(np.moveaxis(images, 3, 1))
