"""Checks of a model on a few real images, before any work.

They leave a model as it was: its buffers, its mode and torch's random generators are restored.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradshard.pipeline.gradients.loss import attack_loss
from gradshard.pipeline.models.first_pass import brief
from gradshard.pipeline.models.precision import Arithmetic, precision_context
from gradshard.pipeline.models.probabilities import LogProbabilities
from gradshard.pipeline.models.tensors import check_tensors
from gradshard.storage.errors import GradshardError

# Share of the largest logit. In deep models, the order of summation in single precision changes logits by some 1e-5 of
# it; batch statistics and random layers change them far more.
_SAME = 1e-3


@dataclass(frozen=True)
class Sample:
    """A few rows of the dataset: images float32 (n, C, H, W) in [0, 1], labels int64 (n,), on the model's device."""

    images: Tensor
    labels: Tensor
    classes: int


@dataclass(frozen=True)
class Gradients:
    """Counts of images, out of ``rows``, whose input gradient is 0 in every pixel, or NaN or infinite in some."""

    rows: int = 0
    zero: int = 0
    undefined: int = 0


def check_frozen(model: nn.Module, sample: Sample, *, where: str, arithmetic: Arithmetic = "fp32") -> Gradients:
    """Check a model as it is attacked, in eval mode, and count images without a usable gradient.

    Args:
        model: on the device of the sample, in any mode.
        sample: rows of the dataset.
        where: the model's name in messages: its architecture, or the file that it comes from.
        arithmetic: the arithmetic of its gradients.

    Raises:
        GradshardError: a tensor of the model is not finite; or the model changes its input, gives no logits, gives
            other logits for the same images, or lets no gradient through.
    """
    check_tensors(model, where=where)
    with as_it_was(model, sample.images.device):
        model.eval()
        _check_mode(model, where)
        with torch.no_grad(), precision_context("fp32", sample.images.device):
            logits = _passed(model, sample.images.clone(), sample.classes, where, "eval")
            _check_repeats(model, sample, logits, where)
            _check_rows(model, sample, logits, where)
            _check_kind(model, logits, where)
        with precision_context(arithmetic, sample.images.device):
            return _gradients(model, sample, where)


def check_differentiable(model: nn.Module, sample: Sample, *, where: str) -> None:
    """Check, in eval mode, that a model's own gradient can be attacked: what it takes and gives, and no more.

    Arguments are those of ``check_frozen``.

    Raises:
        GradshardError: the model changes its input, gives no logits, or lets no gradient through.
    """
    with as_it_was(model, sample.images.device):
        model.eval()
        with torch.no_grad():
            _check_kind(model, _passed(model, sample.images.clone(), sample.classes, where, "eval"), where)
        _gradients(model, sample, where)


def check_trainable(
    model: nn.Module, sample: Sample, *, where: str, arithmetic: Arithmetic = "fp32", least_rows: int | None = None
) -> None:
    """Check a model as it is trained, in train mode.

    Args:
        model: on the device of the sample.
        sample: rows of the dataset.
        where: the model's name in messages.
        arithmetic: the arithmetic of training.
        least_rows: the rows of the smallest batch in training, which is checked if the sample has more.

    Raises:
        GradshardError: the model has no parameter to train, gives something other than logits in train mode, fails in
            the backward pass, or does not take the smallest batch.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise GradshardError(
            f"{where} has no parameter that can be trained: give it one that requires a gradient, or take it as it is "
            "(epochs: 0)"
        )
    with as_it_was(model, sample.images.device), precision_context(arithmetic, sample.images.device):
        model.train()
        with torch.enable_grad():
            # The gradient of the images too, so that the backward pass goes through the whole model.
            images = sample.images.clone().requires_grad_(True)
            logits = _passed(model, images, sample.classes, where, "train")
            loss = nn.functional.cross_entropy(logits.float(), sample.labels)
            _backward(lambda: torch.autograd.grad(loss, [images, *parameters], allow_unused=True), where)
        if least_rows is not None and least_rows < len(sample.images):
            _check_least(model, sample, where, least_rows)


@contextmanager
def as_it_was(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore, at the end, what passes change: modes, buffers (also replaced ones), and torch's generators.

    Passes through a copy would be simpler, but some models cannot be copied (old weight normalisation).
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    kept = [
        {name: (buffer, _once(buffer).clone()) for name, buffer in module._buffers.items() if buffer is not None}
        for module in modules
    ]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode, buffers in zip(modules, modes, kept, strict=True):
            module.training = mode
            for name, (buffer, value) in buffers.items():
                module._buffers[name] = buffer
                with torch.no_grad():
                    _once(buffer).copy_(value)


def _once(buffer: Tensor) -> Tensor:
    """Return a buffer without the repetitions that ``expand`` makes, which cannot be written to."""
    if buffer.layout != torch.strided:
        return buffer
    return buffer[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in buffer.stride())]


def _passed(model: nn.Module, images: Tensor, classes: int, where: str, mode: str) -> Tensor:
    """Return the logits of images, float (n, classes)."""
    before = images._version
    try:
        logits: Tensor = model(images)
    # User code can raise any exception.
    except Exception as error:
        raise GradshardError(
            f"{where} does not take {len(images)} images in {mode} mode ({brief(error)}): mend its code"
        ) from error
    if images._version != before:
        raise GradshardError(
            f"{where} changes the images that it is given, which others are given after it: write x = x - 0.5 for "
            "x -= 0.5, and no inplace=True in a first layer"
        )
    wanted = (len(images), classes)
    found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if found != wanted:
        raise GradshardError(
            f"{where} gives {found} in {mode} mode and not logits of shape {wanted}: let it return its logits alone, "
            "without auxiliary heads (in torchvision aux_logits=False)"
        )
    if not logits.is_floating_point() or bool((logits.isnan() | (logits == math.inf)).any()):
        raise GradshardError(f"{where} gives logits in {mode} mode that are no finite numbers: look at its weights")
    return logits


def _check_mode(model: nn.Module, where: str) -> None:
    training = [type(module).__name__ for module in model.modules() if module.training]
    if training:
        raise GradshardError(
            f"{where} stays in train mode after eval(), such as its {training[0]}: let its train(mode) call "
            "super().train(mode), and let eval() be"
        )


def _check_repeats(model: nn.Module, sample: Sample, logits: Tensor, where: str) -> None:
    if _differ(model(sample.images.clone()), logits):
        raise GradshardError(
            f"{where} is random in eval mode: two passes over the same {len(logits)} images give other logits; let it "
            "draw in train mode alone, or let its forward average over k draws from a generator with a fixed seed"
        )


def _check_rows(model: nn.Module, sample: Sample, logits: Tensor, where: str) -> None:
    """Check that the first and the last row get the same logits alone as in the batch."""
    for row in {0, len(logits) - 1}:
        try:
            alone = model(sample.images[row : row + 1].clone())
        except Exception as error:
            reason = f" ({brief(error)})"
        else:
            if not _differ(alone, logits[row : row + 1]):
                continue
            reason = ""
        raise GradshardError(
            f"{where} gives an image other logits alone than in a batch{reason}: in eval mode nothing may depend on "
            "the other images, so give its batch normalisation running statistics (track_running_stats=True)"
        )


def _check_kind(model: nn.Module, logits: Tensor, where: str) -> None:
    """Check that a model gives logits, or probabilities where ``output`` promises those."""
    logits = logits.float()
    if isinstance(model, LogProbabilities):
        if not _is_one(logits.exp().sum(1)):
            raise GradshardError(f"{where} gives no probabilities, as output: probabilities says: remove that key")
    elif logits.shape[1] > 1 and bool((logits >= 0).all()) and _is_one(logits.sum(1)):
        raise GradshardError(
            f"{where} gives probabilities and not logits: remove its softmax, or set output: probabilities for a "
            "static model, which takes their logarithm"
        )


def _is_one(sums: Tensor) -> bool:
    return bool(((sums - 1).abs() <= _SAME).all())


def _differ(logits: Tensor, others: Tensor) -> bool:
    scale = others[others.isfinite()].abs().max() if bool(others.isfinite().any()) else 1.0
    # Equal infinities count as equal, although their difference is NaN.
    return bool(((logits != others) & ~((logits - others).abs() <= _SAME * scale)).any())


def _gradients(model: nn.Module, sample: Sample, where: str) -> Gradients:
    with torch.enable_grad():
        images = sample.images.clone().requires_grad_(True)
        logits = model(images)
        grad = None
        if logits.requires_grad:
            loss = attack_loss(logits, sample.labels, "exact")
            (grad,) = _backward(lambda: torch.autograd.grad(loss, images, allow_unused=True), where)
    if grad is None:
        raise GradshardError(
            f"{where} lets no gradient through to the images: its forward must not detach them, turn them to integers "
            "or run under no_grad"
        )
    rows = grad.flatten(1)
    return Gradients(rows=len(rows), zero=int((rows == 0).all(1).sum()), undefined=int((~rows.isfinite()).any(1).sum()))


def _backward(
    gradient: Callable[[], tuple[Tensor | None, ...]],
    where: str,
) -> tuple[Tensor | None, ...]:
    try:
        return gradient()
    except Exception as error:
        raise GradshardError(
            f"{where} cannot be gone through backwards ({brief(error)}): mend its code; checkpointing must have "
            "use_reentrant=False"
        ) from error


def _check_least(model: nn.Module, sample: Sample, where: str, rows: int) -> None:
    try:
        model(sample.images[:rows].clone())
    except Exception as error:
        raise GradshardError(
            f"{where} does not take a batch of {rows} in train mode ({brief(error)}), and in training as few pass "
            "together: choose another training.batch, or more rows by GRADSHARD_ROWS_AT_ONCE where it is set"
        ) from error
