"""Device and arithmetic: chosen once, reported, and never changed silently."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

from gradshard.pipeline.types import Compilation, DeviceName, Precision
from gradshard.storage.errors import GradshardError

# In steps: compiling takes about a minute, and saves milliseconds in a step of a small model.
_EARNED_BACK = 10_000

Arithmetic = Literal["fp32", "bf16", "tf32"]


def choose_device(name: DeviceName) -> torch.device:
    """Return the device to compute on; ``auto`` is the GPU where there is one, else the CPU.

    Raises:
        GradshardError: the named device is not available.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    if not present[name]:
        raise GradshardError(f"device: {name} is not available here: set it to auto or cpu")
    return torch.device(name)


def choose_precision(precision: Precision, device: torch.device) -> Arithmetic:
    """Return the arithmetic to train in; ``auto`` is bf16 where the hardware multiplies it natively, else fp32.

    Raises:
        GradshardError: tf32 was asked for on a device that has none.
    """
    if precision == "tf32" and device.type != "cuda":
        raise GradshardError(f"training.precision: tf32 needs an NVIDIA GPU, not {device.type}: set fp32, bf16 or auto")
    if precision != "auto":
        return precision
    return "bf16" if _native_bf16(device) else "fp32"


def choose_compilation(compilation: Compilation, device: torch.device, *, steps: int) -> bool:
    """Decide whether torch compiles the model; ``auto`` compiles on a GPU if the run is long enough to save time.

    On a CPU ``auto`` does not compile: a compiled step of model A takes 0.94 to 1.06 of the time (docs/benchmarks.md),
    while the run would depend on a compiler, and its last bits on the compiler's version.

    Raises:
        GradshardError: it is asked for on a CPU, and the C++ compiler that it needs there is missing.
    """
    if compilation == "on" and device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise GradshardError("training.compile: on needs a C++ compiler, and there is none: install g++, or set off")
    return compilation == "on" or (compilation == "auto" and device.type == "cuda" and steps >= _EARNED_BACK)


def precision_context(arithmetic: Arithmetic, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which forward passes use the given arithmetic; parameters and gradients stay fp32.

    On a GPU the arithmetic of fp32 stays as it is chosen here, because backward passes come after the context.
    """
    if device.type == "cuda":
        _use_tf32(arithmetic == "tf32")
    if arithmetic == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


@contextmanager
def settings_kept() -> Iterator[None]:
    """Give the process its own arithmetic back at the end; also a decorator, for what users call."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, conv.fp32_precision
    try:
        yield
    finally:
        if (matmul.fp32_precision, conv.fp32_precision) != before:
            matmul.fp32_precision, conv.fp32_precision = before


def _use_tf32(wanted: bool) -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32" if wanted else "ieee"
    torch.backends.cudnn.conv.fp32_precision = "tf32" if wanted else "ieee"  # type: ignore[attr-defined]


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
