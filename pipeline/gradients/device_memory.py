"""The memory that passes through models may take: a share of the device's, or what the user allows."""

import functools
import os
from pathlib import Path

import psutil
import torch

# Passes may take the whole memory divided by this: other processes need some, and measurements of tensors do not cover
# what kernels allocate. A process out of CPU memory is killed; out of GPU memory, it gets an error, and retries.
_SHARES = {"cpu": 8, "mps": 8, "cuda": 2}
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_allowed: int | None = None


def limit_memory(size: int | None) -> None:
    """Let the passes of this process take ``size`` bytes on any device; None: a share of the device's memory.

    The limit holds for the process, like that of ``torch.set_num_threads``.
    """
    global _allowed
    _allowed = size


def pass_memory(device: torch.device) -> int:
    """Return how many bytes one pass through a model may take on a device.

    On a CPU, as many passes as cores are assumed to run at once, whatever this process does, because results must not
    depend on the number of workers.
    """
    whole = device_memory(device) // _SHARES[device.type] if _allowed is None else _allowed
    return whole // (_cores() if device.type == "cpu" else 1)


@functools.cache
def device_memory(device: torch.device) -> int:
    """Return how many bytes of memory a device has, including those in use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    # Apple's GPUs share the memory of the CPU.
    whole = int(psutil.virtual_memory().total)
    return min([whole, *(limit for path in map(Path, _CGROUP_LIMITS) if (limit := _limit_in(path)) is not None)])


def _limit_in(path: Path) -> int | None:
    """Read a container's limit; None if there is no such file, or it says ``max``."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
