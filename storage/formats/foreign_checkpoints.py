"""Checkpoints that other programs wrote, in many forms: their tensors, by the names that a model expects.

From a pickled file only tensors, plain values and plain containers are read, so none of its code runs.
"""

import argparse
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gradshard.storage.errors import GradshardError

# Plain data that training scripts put beside weights: their arguments, and NumPy numbers such as a best accuracy.
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    *(getattr(np.dtypes, f"{name}DType") for name in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")),
]
_ADVICE = "save model.state_dict() as safetensors, or by torch.save"

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, on the CPU; ``remark`` says, if it is not obvious, which weights of the file they are."""

    tensors: dict[str, Tensor]
    remark: str = ""


def read_checkpoint(path: Path, *, wanted: Collection[Collection[str]] = (), key: str | None = None) -> Checkpoint:
    """Read the weights of a model from a safetensors file, or from what ``torch.save`` made.

    The weights are the whole file, or lie under one of its keys. A prefix, such as DistributedDataParallel,
    torch.compile and Lightning add, is removed if the names do not fit with it.

    Args:
        path: of the file.
        wanted: sets of names, one of which the model needs; if there are none, names stay as they are.
        key: under which the weights lie; by default the one key whose tensors fit.

    Raises:
        GradshardError: the file is missing or damaged, or holds something else or several models.
    """
    states = _states(_content(path), path)
    if key is not None and key not in states:
        raise GradshardError(f"{path} has no weights under {key}, as weights_key says: {_keys(states)}")
    fitting = {name: _fitted(state, wanted, path) for name, state in states.items() if key in (None, name)}
    name = _chosen(fitting, wanted, path)
    others = [other for other in fitting if other != name and _fits(fitting[other][0], wanted)]
    tensors, prefix = fitting[name]
    _check_plain(tensors, path)
    remark = f"the weights under {name} are taken" if name else ""
    remark += f", and not those under {', '.join(others)} (static.NAME.weights_key names others)" if others else ""
    if prefix:
        remark += f"{', ' if remark else 'the weights are taken '}without the prefix {prefix} of their names"
    return Checkpoint(tensors, remark)


def _content(path: Path) -> object:
    try:
        with path.open("rb") as file:
            # A safetensors file begins with 8 bytes of length and a JSON object.
            is_safetensors = file.read(9)[8:] == b"{"
        if is_safetensors:
            return load_file(path)
        with torch.serialization.safe_globals(_PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise GradshardError(f"no checkpoint at {path}: give the path of one, seen from the project's root") from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError, OSError, UnpicklingError) as error:
        foreign = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        if foreign:
            raise GradshardError(
                f"{path} is no checkpoint of plain tensors: beside them it holds a {foreign[1]}, to read which its "
                f"code would have to run: {_ADVICE}"
            ) from error
        if "TorchScript" in str(error):
            raise GradshardError(
                f"{path} is a whole model of torch.jit, to read which its code would have to run: {_ADVICE}"
            ) from error
        # Torch's own advice is to run the file's code.
        advises = str(error).startswith("Weights only load failed")
        problem = "no pickle of torch" if advises else " ".join(str(error).split())[:160] or type(error).__name__
        raise GradshardError(
            f"{path} is no checkpoint of plain tensors, or is damaged ({problem}): {_ADVICE}"
        ) from error


def _check_plain(tensors: State, path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            kind = "has no values (device meta)" if tensor.is_meta else "is sparse or quantised"
            raise GradshardError(f"{path}: {name} {kind}: save a state_dict of plain tensors")


def _states(content: object, path: Path) -> dict[str, State]:
    """Return every mapping of names to tensors in a file, by its key, which is empty if it is the whole file."""
    if (state := _state(content)) is not None:
        return {"": state}
    found = content.items() if isinstance(content, Mapping) else ()
    states = {str(key): state for key, value in found if (state := _state(value)) is not None}
    if not states:
        raise GradshardError(f"{path} holds no state_dict: {_ADVICE}")
    return states


def _state(value: object) -> State | None:
    if not isinstance(value, Mapping) or not value:
        return None
    # State of a module that is not a tensor; models with such state are refused elsewhere.
    tensors = {name: tensor for name, tensor in value.items() if not str(name).endswith("_extra_state")}
    return tensors if tensors and all(isinstance(tensor, Tensor) for tensor in tensors.values()) else None


def _chosen(
    fitting: Mapping[str, tuple[dict[str, Tensor], str]], wanted: Collection[Collection[str]], path: Path
) -> str:
    """Return the key of the only weights that fit, or of the only ones of them that are no moving average."""
    whole = [name for name, (tensors, _) in fitting.items() if _fits(tensors, wanted)] or list(fitting)
    plain = [name for name in whole if "ema" not in name.lower()] or whole
    if len(plain) > 1:
        raise GradshardError(
            f"{path} holds several models, under {', '.join(plain)}: name the one to take in static.NAME.weights_key"
        )
    return plain[0]


def _fits(names: Collection[str], wanted: Collection[Collection[str]]) -> bool:
    return any(set(some) <= set(names) for some in wanted)


def _fitted(state: State, wanted: Collection[Collection[str]], path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors without the prefix under which most of the wanted names are found, and that prefix."""
    if not wanted or _fits(state, wanted):
        return dict(state), ""
    longest = [max(some, key=len, default="") for some in wanted]
    prefixes = {name.removesuffix(end) for end in longest for name in state if name.endswith(f".{end}")}
    stripped = {prefix: {name.removeprefix(prefix): tensor for name, tensor in state.items()} for prefix in prefixes}
    whole = [prefix for prefix in sorted(stripped) if _fits(stripped[prefix], wanted)]
    plain = [prefix for prefix in whole if "ema" not in prefix.lower()] or whole
    # The attacking wrapper that the package robustness saves holds the same model twice.
    if len(plain) > 1 and all(_same(stripped[plain[0]], stripped[prefix], wanted) for prefix in plain[1:]):
        plain = [min(plain, key=len)]
    if len(plain) > 1:
        raise GradshardError(
            f"{path} holds several models, named {', '.join(f'{prefix}*' for prefix in plain)}: save the state_dict of "
            "the one to take"
        )
    prefix = plain[0] if plain else max(sorted({"", *prefixes}), key=lambda p: _found(stripped.get(p, state), wanted))
    return stripped.get(prefix, dict(state)), prefix


def _same(one: State, other: State, wanted: Collection[Collection[str]]) -> bool:
    names = next(some for some in wanted if _fits(one, [some]))
    return _fits(other, [names]) and all(torch.equal(one[name], other[name]) for name in names)


def _found(names: Collection[str], wanted: Collection[Collection[str]]) -> int:
    return max(len(set(some) & set(names)) for some in wanted)


def _keys(states: Mapping[str, State]) -> str:
    named = [name for name in states if name]
    return f"it has some under {', '.join(named)}" if named else "the file itself is a state_dict, so leave that out"
