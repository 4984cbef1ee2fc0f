"""Isolation of attacks that draw from the process's global random generators."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# All threads share the generators, so only one may seed them at a time. Reentrant: an attack may call another.
_alone = threading.RLock()


@contextmanager
def own_randomness(device: torch.device, *, seed: int | None = None) -> Iterator[None]:
    """Let one attack use the generators of torch, NumPy and Python, seeded if wanted, and restore them afterwards."""
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
