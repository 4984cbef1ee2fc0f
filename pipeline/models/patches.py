"""A check of models that cut images into patches: no logit would depend on pixels that are left over."""

import torch
from torch import Tensor, nn

from gradshard.storage.errors import GradshardError


class _SeenError(Exception):
    """Raised to end a pass once the first convolution is reached; users never see it."""


def check_patches(model: nn.Module, architecture: str, sample_shape: tuple[int, int, int]) -> None:
    """Check that no pixel is left over where a model's first convolution cuts images into patches.

    The size that counts is that of the convolution's input, because a model may pad its images.

    Args:
        model: takes images (N, C, H, W) in [0, 1].
        architecture: the model's name in messages.
        sample_shape: (C, H, W) of an image.

    Raises:
        GradshardError: the size of the image is no multiple of that of the patch.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or not _cuts(first):
        return
    given = _input_size(model, first, sample_shape)
    patch = (int(first.kernel_size[0]), int(first.kernel_size[1]))
    if given is None or (given[0] % patch[0] == 0 and given[1] % patch[1] == 0):
        return
    height, width = given
    ignored = height * width - height // patch[0] * patch[0] * (width // patch[1] * patch[1])
    raise GradshardError(
        f"{architecture} cuts images of {height}x{width} into patches of {patch[0]}x{patch[1]} and ignores the "
        f"{ignored} pixels that are left over: choose a dataset.size that is a multiple of the patch, or another "
        "architecture"
    )


def _cuts(layer: nn.Conv2d) -> bool:
    """Tell whether the windows of a convolution lie side by side, without padding."""
    return layer.kernel_size == layer.stride and max(layer.kernel_size) > 1 and layer.padding in ((0, 0), "valid")


def _input_size(model: nn.Module, layer: nn.Conv2d, shape: tuple[int, int, int]) -> tuple[int, int] | None:
    """Find the height and width of a layer's input; None if the model does not take such images."""
    seen: list[tuple[int, int]] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append((int(inputs[0].shape[-2]), int(inputs[0].shape[-1])))
        raise _SeenError

    hook = layer.register_forward_pre_hook(look)
    try:
        with torch.no_grad():
            model.eval()(torch.full((1, *shape), 0.5))
    # A model can raise any exception for images that it does not take; ``check_logits`` reports it later.
    except Exception:
        return seen[0] if seen else None
    finally:
        hook.remove()
    return None
