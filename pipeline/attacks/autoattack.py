"""AutoAttack (Croce and Hein 2020), standard version, L-infinity, as the authors' package ``pyautoattack`` computes it.

APGD on the cross-entropy, targeted APGD on the difference of logits ratio, targeted FAB and Square run in this order,
each on the images that are still classified correctly. All settings are the package's. AutoAttack has its own losses,
so it ignores the parameter ``gradient``.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradshard.pipeline.attacks.isolation import own_randomness
from gradshard.storage.errors import GradshardError
from gradshard.storage.optional import remedy

# The targeted loss looks at the four largest logits.
_FEWEST_CLASSES = 4
_TARGETS = 9


def check_autoattack(classes: int) -> None:
    """Refuse the attack if it cannot run, before any long work begins.

    Raises:
        GradshardError: the package is missing, or there are too few classes for its targeted loss.
    """
    _package()
    if classes < _FEWEST_CLASSES:
        raise GradshardError(
            f"the targeted loss of autoattack needs {_FEWEST_CLASSES} classes, but there are {classes}: leave it "
            "out of the attacks"
        )


def autoattack(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, seed: int) -> Tensor:
    """Return adversarial examples (N, C, H, W); images that are misclassified, or that nothing fools, stay unchanged.

    Args:
        model: in eval mode.
        images: float (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        epsilon: the radius of the ball.
        seed: of all random draws, which are made for the batch as a whole: the same seed and batch give the same
            examples.

    Raises:
        GradshardError: see ``check_autoattack``.
    """
    predict = _logits_of(model, images.dtype)
    with torch.no_grad():
        classes = predict(images[:1]).shape[1]
    check_autoattack(classes)
    attack = _package().AutoAttack(predict, eps=epsilon, norm="Linf", seed=seed, device=images.device)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(_TARGETS, classes - 1)
    with own_randomness(images.device), _quiet():
        given = images.float().contiguous()
        examples: Tensor = attack.run_standard_evaluation(given, labels, batch_size=len(images))[0]
    return examples.to(images.dtype)


def _package() -> Any:
    try:
        import pyautoattack
    except ImportError as error:
        raise GradshardError(
            f"the attack autoattack needs the package pyautoattack: {remedy('pyautoattack')}, or leave it out"
        ) from error
    return pyautoattack


def _logits_of(model: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return the model as a function with detached parameters, because FAB calls ``backward``."""
    frozen = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def predict(images: Tensor) -> Tensor:
        # Flattening keeps the gradient contiguous, whatever the layout inside: the package calls ``view`` on it.
        # The package computes in float32.
        logits: Tensor = functional_call(model, frozen, (images.flatten(1).view(images.shape).to(dtype),))
        return logits.float()

    return predict


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the package's warnings of masked gradients, and undo its tracing of calls.

    The warnings would come once per batch; gradshard's diagnostics measure the same on all examples together.
    """
    logger, trace = logging.getLogger("auto-attack"), sys.gettrace()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        sys.settrace(trace)
