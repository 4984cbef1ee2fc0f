"""Weights and checkpoints as safetensors files: tensors and one JSON record, nothing that is unpickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import atomic_path
from gradshard.storage.formats.digests import canonical_json

# One key: the library does not promise an order for several, and equal weights must give equal bytes.
_KEY = "gradshard"


def save(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, object]) -> None:
    """Write tensors and a JSON-able record to one file, atomically; equal input gives equal bytes."""
    # Copied: the format takes no tensors that share memory, as tied weights do.
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


def load_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint that somebody else wrote: its tensors by name, on the CPU.

    It is a safetensors file, or what ``torch.save`` made of a ``state_dict`` or of a mapping with one under the key
    ``state_dict`` or ``model``. Prefixes that DistributedDataParallel and torch.compile add are taken off. Of a pickled
    file nothing but tensors and plain values is read, so no code of it runs.

    Raises:
        GradshardError: the file is missing, damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            # A safetensors file begins with 8 bytes of length and a JSON object.
            is_safetensors = file.read(9)[8:] == b"{"
        content = load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise GradshardError(f"no checkpoint at {path}: give the path of one, seen from the project's root") from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError, OSError, UnpicklingError) as error:
        raise GradshardError(
            f"{path} is no checkpoint of plain tensors, or is damaged ({' '.join(str(error).split())[:160]}): save "
            "model.state_dict() as safetensors, or by torch.save"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise GradshardError(f"{path} holds no state_dict: save model.state_dict() as safetensors, or by torch.save")
    return {_bare(name): tensor for name, tensor in content.items()}


def _bare(name: str) -> str:
    prefixes = ("module.", "_orig_mod.")
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name


def tensors_digest(tensors: Mapping[str, Tensor], architecture: str) -> str:
    """The digest of a model: its architecture's name, and the name, shape, dtype and bytes of each tensor."""
    sha256 = hashlib.sha256(architecture.encode())
    for name, tensor in sorted(tensors.items()):
        header = {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        sha256.update(canonical_json(header).encode())
        sha256.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()
