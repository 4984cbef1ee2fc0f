"""Weights and the checkpoints of runs as safetensors files: tensors and one JSON record, nothing pickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import atomic_path
from gradshard.storage.formats.digests import canonical_json

# One key: the library does not promise an order for several, and equal weights must give equal bytes.
_KEY = "gradshard"


def save(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, object]) -> None:
    """Write tensors and a JSON-able record to one file, atomically; equal input gives equal bytes."""
    # Copied: the format does not allow tensors that share memory, as tied weights do.
    contiguous = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in sorted(tensors.items())
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(serialise(contiguous, metadata={_KEY: canonical_json(record)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read a file that ``save`` wrote: tensors on the CPU, and the record.

    Raises:
        GradshardError: the file is missing, damaged or not from gradshard.
    """
    if not path.exists():
        raise GradshardError(f"no weights at {path}: train that model first, or `dvc pull` it")
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise GradshardError(f"{path} is not a weights file of gradshard, or is damaged ({error})") from error
    return tensors, record


def tensors_digest(tensors: Mapping[str, Tensor], architecture: str) -> str:
    """Return the digest of a model: its architecture's name, and the name, shape, dtype and bytes of each tensor."""
    sha256 = hashlib.sha256(architecture.encode())
    for name, tensor in sorted(tensors.items()):
        header = {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        sha256.update(canonical_json(header).encode())
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()
