"""Attacks that draw from the process's own random generators, kept apart from one another and from everything else."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# The generators belong to the process: of several threads one may seed them at a time. An attack may call another.
_alone = threading.RLock()


@contextmanager
def own_randomness(device: torch.device, *, seed: int | None = None) -> Iterator[None]:
    """Give the generators of torch, NumPy and Python to one attack, seeded if wanted; afterwards they are as before."""
    with _alone, torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002 - this is about the global one
        try:
            if seed is not None:
                torch.manual_seed(seed)
                np.random.seed(seed)  # noqa: NPY002
                random.seed(seed)
            yield
        finally:
            np.random.set_state(numpys)  # noqa: NPY002
            random.setstate(pythons)
