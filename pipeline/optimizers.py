"""Adam over torch's functional form, with its state as plain named tensors.

The class ``torch.optim.Adam`` imports torch's compiler when it is made: 1.4 s at the start of every training stage.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """Adam (Kingma and Ba 2015) with its usual constants, for the parameters of one model."""

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._learning_rate = learning_rate
        self._means = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self._squares = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self._steps = {name: torch.zeros((), device=tensor.device) for name, tensor in self._parameters.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters along their gradients, and clear those."""
        parameters: list[Tensor] = list(self._parameters.values())
        adam(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            list(self._means.values()),
            list(self._squares.values()),
            [],
            list(self._steps.values()),
            fused=parameters[0].device.type in ("cpu", "cuda"),
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        for parameter in parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """The running moments and step counts, by name."""
        kinds = {"mean": self._means, "square": self._squares, "step": self._steps}
        return {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
