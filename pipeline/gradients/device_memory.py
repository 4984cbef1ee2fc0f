"""The memory that passes through models may take: of what the device has, or of what the user allows."""

import functools
import os
from pathlib import Path

import psutil
import torch

# The machine computes other things too, and what a kernel takes for itself is in no measurement of tensors. On a CPU
# nobody gets a second try: a process that takes too much is killed. On a GPU it is told, and tries with less.
_SHARES = {"cpu": 8, "mps": 8, "cuda": 2}
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_allowed: int | None = None


def limit_memory(size: int | None) -> None:
    """Let the passes of this process take so many bytes on any device; nothing: a share of what the device has.

    Of a process, as ``torch.set_num_threads``.
    """
    global _allowed
    _allowed = size


def pass_memory(device: torch.device) -> int:
    """Return how many bytes one pass through a model may take on a device.

    On a CPU as many passes run at once as there are cores, whatever this process does: what is computed must not depend
    on how many workers there are.
    """
    whole = device_memory(device) // _SHARES[device.type] if _allowed is None else _allowed
    return whole // (_cores() if device.type == "cpu" else 1)


@functools.cache
def device_memory(device: torch.device) -> int:
    """Return how many bytes of memory a device has, those that others use among them."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    # Apple's GPUs share the memory of the CPU.
    whole = int(psutil.virtual_memory().total)
    return min([whole, *(limit for path in map(Path, _CGROUP_LIMITS) if (limit := _limit_in(path)) is not None)])


def _limit_in(path: Path) -> int | None:
    """Read the limit that a container has; none where there is no such file, or it says ``max``."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
