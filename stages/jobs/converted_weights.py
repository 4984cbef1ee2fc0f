"""Conversion of weights that somebody else trained, for the command ``weights convert``."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradshard.pipeline.models.slim_weights import Converted, convert_ported, convert_slim
from gradshard.stages.console.progress import echo
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.foreign_checkpoints import read_checkpoint
from gradshard.storage.formats.plain_pickles import read_pickled_arrays
from gradshard.storage.formats.tensorflow_checkpoints import is_tensorflow, read_tensorflow

# MMdnn's names for the arrays of an operation, and PyTorch's.
_OF_OPERATIONS = {"weights": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def convert_file(file: Path, out: Path) -> None:
    """Convert TF-slim's weights, or a port of them to PyTorch, to a safetensors file with timm's names.

    Raises:
        GradshardError: the file holds no such weights, or would be overwritten.
    """
    if out.resolve() == file.resolve():
        raise GradshardError(f"{out} is the file to convert, which would be lost: name another file to write")
    converted = _converted(file)
    checkpoints.save(out, converted.tensors, {"kind": "converted", "architecture": converted.architecture})
    left = f", {' and '.join(converted.remarks)}" if converted.remarks else ""
    echo(f"{out}: {len(converted.tensors)} tensors of {converted.architecture}{left}")


def _converted(file: Path) -> Converted:
    if is_tensorflow(file):
        variables = {name: torch.from_numpy(array.copy()) for name, array in read_tensorflow(file).items()}
        return convert_slim(variables, where=str(file))
    if file.suffix == ".npy":
        return convert_ported(_ported_arrays(file), where=str(file))
    return convert_ported(read_checkpoint(file).tensors, where=str(file))


def _ported_arrays(file: Path) -> dict[str, Tensor]:
    """Read the arrays that MMdnn wrote, by their names in its PyTorch model."""
    found = read_pickled_arrays(file)
    if not isinstance(found, dict) or not all(isinstance(arrays, dict) for arrays in found.values()):
        raise GradshardError(f"{file} holds no dictionary of the weights of operations, as MMdnn writes it")
    return {
        f"{operation}.{_OF_OPERATIONS[kind]}": torch.from_numpy(np.array(array))
        for operation, arrays in found.items()
        for kind, array in arrays.items()
        if kind in _OF_OPERATIONS
    }
