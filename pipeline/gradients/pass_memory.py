"""Peak bytes of the tensors of one pass through a model, forwards and back to its images."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradshard.pipeline.gradients.loss import attack_labels, attack_loss
from gradshard.pipeline.gradients.model_checks import as_it_was


def pass_bytes(model: nn.Module, images: Tensor) -> int:
    """Return the peak bytes of the tensors that are made to compute the input gradient of images, (n, C, H, W).

    Tensors are counted operation by operation, so the result is the same each time and on each device, whatever else
    the process does. Memory that a kernel allocates for itself is not counted. The model is left as it was.

    Args:
        model: in eval mode, on the device of the images.
        images: of the model's own dtype.
    """
    # Passes in bf16 take less, but the result is kept, and may be used for passes in fp32 later.
    height, inputs = _Height(), images.detach().requires_grad_(True)
    with (
        as_it_was(model, images.device),
        torch.autocast(images.device.type, enabled=False),
        torch.enable_grad(),
        height,
    ):
        logits = model(inputs)
        # A model without a gradient can still classify; an attack on it raises its own error.
        if logits.requires_grad:
            loss = attack_loss(logits, attack_labels(logits, None, "predicted"), "exact")
            torch.autograd.grad(loss, inputs, allow_unused=True)
    return height.most


class _Height(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that operations return, now and at the peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise torch imports its compiler, which takes a second, only to skip this mode.
        return False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(given):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:  # others have no storage
                self._count(tensor.untyped_storage())
        return given

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address in self._known:
            return
        size = storage.nbytes()
        self._known[address] = weakref.finalize(storage, self._forget, address, size)
        self._now += size
        self.most = max(self.most, self._now)

    def _forget(self, address: int, size: int) -> None:
        del self._known[address]
        self._now -= size
