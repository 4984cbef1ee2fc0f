"""The first pass through a new model, in which its logits are checked."""

import torch
from torch import Tensor, nn

from gradshard.storage.errors import GradshardError


def check_logits(
    model: nn.Module, architecture: str, shape: tuple[int, int, int], classes: int, *, advice: str
) -> None:
    """Try a new model on one grey image, to find what a constructor does not: sizes that vanish, wrong logits.

    Lazy layers are initialised by this pass.

    Raises:
        GradshardError: the model does not take such images, or does not give logits (1, classes).
    """
    wanted = f"images of {shape[0]}x{shape[1]}x{shape[2]} and {classes} classes"
    try:
        with torch.no_grad():
            logits = model.eval()(torch.full((1, *shape), 0.5))
    except Exception as error:
        raise GradshardError(
            f"architecture {architecture} does not take {wanted} ({brief(error)}): {advice}"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (1, classes):
        raise GradshardError(
            f"architecture {architecture} gives {found} for one image and not logits of shape (1, {classes}): "
            f"{_remedy(logits, classes) or advice}"
        )


def _remedy(found: object, classes: int) -> str | None:
    if not isinstance(found, Tensor):
        return "let it return its logits alone"
    if classes == 2 and found.numel() == 1:
        return "give two logits, such as torch.cat((torch.zeros_like(z), z), 1) of a score z (N, 1) before its sigmoid"
    return None


def brief(error: Exception) -> str:
    """Return the message of an error, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
