"""Creation of a training method, for one run, from its entry in the registry."""

from importlib import import_module

import torch

from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.methods.method import Clean, Method
from gradshard.pipeline.training.methods.registry import METHODS
from gradshard.pipeline.training.priors import SignBuffer


def make_method(adversary: Adversary | None, *, shape: tuple[int, ...], device: torch.device, rows: int = 0) -> Method:
    """Make the method of an adversary, for one run; without one, training on clean images.

    Args:
        adversary: names the method and has its settings.
        shape: of the images of a whole batch, over all ranks.
        device: that of the model.
        rows: the number of rows of the dataset, including those held back; for a method that has a prior.
    """
    if adversary is None:
        return Clean()
    entry = METHODS[adversary.method]
    module, _, name = entry.function.partition(":")
    given: dict[str, object] = {}
    if entry.prior:
        given["prior"] = SignBuffer(rows, shape[1:], device=device)
    method: Method = getattr(import_module(module), name)(
        adversary, shape=shape, device=device, **given, **{**entry.settings, **adversary.settings}
    )
    return method
