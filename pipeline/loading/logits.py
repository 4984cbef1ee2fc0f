"""Any classifier as a model of this package: images in [0, 1] to logits, frozen, in eval mode."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gradshard.pipeline.gradients.model_checks import Sample, check_frozen
from gradshard.pipeline.models.normalize import Normalised
from gradshard.pipeline.models.tensors import copied, device_of, part_in_training
from gradshard.storage.errors import GradshardError

Output = Callable[[Any], Tensor]

_ONE = 1e-3


class Logits(nn.Module):
    """A model whose output is converted to logits (N, classes): by a function, or by the usual conventions."""

    def __init__(self, model: nn.Module, output: Output | None) -> None:
        super().__init__()
        self.model = model
        self._output = output

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images in [0, 1], (N, C, H, W)."""
        found = self.model(images)
        return _usual(found) if self._output is None else self._output(found)

    def twin(self) -> "Logits":
        """Return a copy of the model for another thread, with its own modules but the same tensors.

        Raises:
            GradshardError: the model cannot be copied.
        """
        try:
            return cast("Logits", copied(self, shared=[*self.parameters(), *self.buffers()]))
        except GradshardError as error:
            raise GradshardError(f"{error}; or compute with threads=1, for which it is not copied") from error


def _usual(found: Any) -> Tensor:
    if isinstance(found, Mapping):
        found = found.get("logits")
    logits = found if isinstance(found, Tensor) else getattr(found, "logits", None)
    if not isinstance(logits, Tensor):
        raise GradshardError(
            f"the model gives a {type(found).__name__} and neither a tensor nor something with .logits: say which part "
            "is the logits by output=, a function of what the model gives"
        )
    return logits


def normalised(
    model: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, *, channels: int
) -> nn.Module:
    """Put the normalisation by ``mean`` and ``std`` before a model, so that it takes pixels in [0, 1].

    Raises:
        GradshardError: one of the two is missing, they do not fit the channels, or the model already normalises.
    """
    if mean is None and std is None:
        return model
    if mean is None or std is None or not _fits(mean, std, channels):
        raise GradshardError(
            f"mean={mean} and std={std} are no normalisation of {channels} channel(s): give both, a number for each "
            "channel, std above 0"
        )
    for name, part in model.named_modules():
        if _normalises(part, channels):
            raise GradshardError(
                f"the model{f' (its part {name})' if name else ''} has a mean and std of its own, so mean= and std= "
                "would normalise twice: leave them out"
            )
    place = device_of(model)
    return Normalised(model, mean, std, channels=channels).to(place).train(model.training)


def _fits(mean: Sequence[float], std: Sequence[float], channels: int) -> bool:
    """Tell whether both are lists, of one number or one for each channel, and what is divided by is above 0."""
    if np.ndim(mean) != 1 or np.ndim(std) != 1:
        return False
    return not {len(mean), len(std)} - {1, channels} and all(value > 0 for value in std)


def _normalises(module: nn.Module, channels: int) -> bool:
    """Tell whether a module holds a mean and a std, each one number or one per channel, as normalising modules do."""
    values = [getattr(module, name, None) for name in ("mean", "std")]
    numbers = [torch.as_tensor(value) for value in values if isinstance(value, Tensor | list | tuple | float)]
    return len(numbers) == 2 and all(number.numel() in (1, channels) for number in numbers)


def check_eval(model: nn.Module) -> None:
    """Refuse what is no module, and a part in train mode, in which dropout is random and batch statistics are used.

    Raises:
        GradshardError: it is no module, a part is in train mode, or torch.inference_mode leaves out gradients.
    """
    if not isinstance(model, nn.Module):
        raise GradshardError(
            f"model is a {type(model).__name__}, not a torch.nn.Module: give the arguments in their order, or by name"
        )
    if torch.is_inference_mode_enabled():
        raise GradshardError("signs need gradients, which torch.inference_mode leaves out: use torch.no_grad instead")
    part = part_in_training(model)
    if part is not None:
        raise GradshardError(
            f"the model{f' (its part {part})' if part else ''} is in train mode, in which its gradient depends on the "
            "batch and on chance: call model.eval() first"
        )


def count_classes(model: Logits, images: Tensor) -> int:
    """Try a model on a few images, and return the number of its classes.

    Args:
        model: in eval mode.
        images: float32 (n, C, H, W) in [0, 1], on the model's device.

    Raises:
        GradshardError: the model does not take the images, or gives no logits.
    """
    shape = tuple(images.shape[1:])
    try:
        with torch.no_grad():
            logits = model(images)
    except GradshardError:
        raise
    # A forward pass can raise any exception for images that it does not take.
    except Exception as error:
        problem = " ".join(str(error).split())[:200]
        raise GradshardError(
            f"the model does not take images of shape {shape} ({problem}): {_remedy(model)}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise GradshardError(
            f"the model gives {found} for {len(images)} images and not logits of shape ({len(images)}, classes), two "
            "classes at least: say where they are by output="
        )
    values = logits.double()
    if not values.isfinite().all():
        raise GradshardError("the model's logits are not all finite numbers: look at its weights")
    if values.min() >= 0 and ((values.sum(1) - 1).abs() <= _ONE).all():
        raise GradshardError(
            "the model gives probabilities (each row sums to one) and not logits, whose gradients they lose: take the "
            "softmax off, or say by output= where the logits are"
        )
    return int(logits.shape[1])


def _remedy(model: nn.Module) -> str:
    found = {tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()} - {torch.float32}
    return f"it has parameters of {found.pop()}, so call its float() first" if found else "mend transform="


def check_model(model: Logits, images: Tensor, classes: int) -> None:
    """Check a model as every command does before any work.

    Args:
        model: in eval mode.
        images: float32 (n, C, H, W) in [0, 1], on the model's device.
        classes: the number of its classes.

    Raises:
        GradshardError: the model changes its input, is random, mixes the images of a batch, or has no gradient.
    """
    with torch.no_grad():
        predicted = model(images).argmax(1)
    gradients = check_frozen(model, Sample(images, predicted, classes), where="the model")
    if gradients.zero == gradients.rows:
        raise GradshardError(
            f"the model's gradient is 0 in every pixel of {gradients.zero} of {gradients.rows} images, so its signs "
            "attack nobody: take out what has no slope, such as rounding"
        )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Keep a model's parameters out of the graph in a context."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
