"""Parts of a short training of a small model: its adversary, its batches and its parameters."""

import numpy as np
import torch

from gradshard.pipeline.gradients.random_step import RandomStep
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.data import StoredBatch

CPU = torch.device("cpu")
RANDOM_STEPS = tuple(RandomStep(0.05, seed=4, copy=copy) for copy in range(3))


def adversary(**changed):
    """Return an adversary of the model itself and of the stores A and C, changed as asked."""
    values = {
        "attack": "fgsm",
        "epsilon": 0.3,
        "alpha": 0.05,
        "clean_weight": 0.5,
        "sources": ("self", "A", "C"),
        "schedule": "random",
        "gradient": "exact",
        "policy": "predicted",
        "live_mode": "train",
        "directions": {"A": 1, "C": 1},
    }
    return Adversary(**(values | changed))


def with_random_steps(**changed):
    """Return an adversary that knows the store R too, whose signs begin after a random step."""
    return adversary(directions={"A": 1, "C": 1, "R": 1}, random_steps={"R": RANDOM_STEPS}, **changed)


def stored(images, labels, planes):
    """Return a batch of the first rows, as it is read from a dataset and a store."""
    return StoredBatch(np.arange(len(images)), *map(torch.from_numpy, (images, labels, planes)))


def without_dropout(trainer):
    """Switch off the dropout of the trainer's model."""
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def parameters(trainer):
    """Return a copy of the model's tensors, by name."""
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def equal(one, other):
    """Tell whether the tensors of one equal those of the other."""
    return all(torch.equal(one[name], other[name]) for name in one)
