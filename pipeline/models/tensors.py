"""A model's tensors: checks that they are plain and finite, their device, and copies; and its parts in train mode."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gradshard.storage.errors import GradshardError


def check_tensors(model: nn.Module, *, where: str) -> None:
    """Check every tensor that a model's weights file will hold.

    Infinity is refused in parameters only: buffers may hold it on purpose, as masks of attention do.

    Raises:
        GradshardError: a tensor is not plain, or not finite; the message names it.
    """
    check_plain(model, where=where)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        wrong = ~tensor.isfinite() if name in parameters else tensor.isnan()
        if bool(wrong.any()):
            raise GradshardError(
                f"{where} holds {int(wrong.sum())} values of {tensor.numel()} in {name} that are no finite numbers "
                "(NaN or infinity): train it again, or take other weights"
            )


def check_plain(model: nn.Module, *, where: str) -> None:
    """Check that a new model can be moved, filled and saved at all, whatever its values.

    Raises:
        GradshardError: a parameter or buffer is not a plain tensor; the message names it.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise GradshardError(f"{where} was made by torch.jit: give the module itself, before it is scripted or traced")
    for name, tensor in _state(model, where).items():
        if (kind := _unusual(tensor)) is not None:
            raise GradshardError(f"{where} holds {kind}, {name}: a model's parameters and buffers are plain tensors")


def is_lazy(model: nn.Module) -> bool:
    """Tell whether a parameter or buffer is only initialised in the first pass."""
    return any(
        tensor is not None and nn.parameter.is_lazy(tensor)
        for module in model.modules()
        for tensor in (*module._parameters.values(), *module._buffers.values())
    )


def _state(model: nn.Module, where: str) -> dict[str, object]:
    try:
        return dict(model.state_dict())
    # A user's get_extra_state can raise any exception.
    except Exception as error:
        raise GradshardError(
            f"{where} gives no state_dict ({' '.join(str(error).split())[:200]}): mend its code"
        ) from error


def _unusual(tensor: object) -> str | None:
    if not isinstance(tensor, Tensor):
        return f"state that is no tensor but a {type(tensor).__name__} (get_extra_state)"
    if tensor.is_meta:
        return "a tensor without values (device meta)"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "a sparse or quantised tensor"
    return None


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters; of one without any, that of new tensors."""
    return next(model.parameters(), torch.empty(0)).device


def part_in_training(model: nn.Module) -> str | None:
    """Return the name of the first part in train mode, empty for the whole model; none if all are in eval mode."""
    return next((name for name, module in model.named_modules() if module.training), None)


def copied(model: nn.Module, *, shared: Iterable[Tensor] = ()) -> nn.Module:
    """Return a deep copy of a model, with the ``shared`` tensors themselves.

    Tensors that a pass left in its modules, such as kept activations, are detached: torch does not copy them otherwise.

    Raises:
        GradshardError: the model cannot be copied.
    """
    left = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    memo = {id(tensor): tensor.detach() for tensor in left if not tensor.is_leaf}
    try:
        return copy.deepcopy(model, memo | {id(tensor): tensor for tensor in shared})
    # A user's module can raise any exception when it is copied.
    except Exception as error:
        raise GradshardError(
            f"the model cannot be copied ({' '.join(str(error).split())[:200]}): keep nothing of a pass in it"
        ) from error
