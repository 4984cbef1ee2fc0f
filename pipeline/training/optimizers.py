"""Adam and RMSProp, with their state as plain named tensors, and the learning rate of every epoch.

The classes of ``torch.optim`` import torch's compiler when they are made: 1.4 s at the start of every training stage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from gradshard.pipeline.types import OptimizerName


@dataclass(frozen=True)
class Optimization:
    """An optimiser and its learning rate, multiplied by ``decay`` after every ``decay_epochs`` epochs."""

    optimizer: OptimizerName
    learning_rate: float
    decay: float = 1.0
    decay_epochs: int = 1

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        return self.learning_rate * self.decay ** (epoch // self.decay_epochs)


class Optimizer(Protocol):
    """Optimizer of any kind, which changes parameters along their gradients."""

    def step(self, rate: float) -> None:
        """Change the parameters along their gradients, and clear those."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Its running values, by name."""
        ...


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that a training moves: those that their maker froze stay as they are."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def make_optimizer(name: OptimizerName, model: nn.Module) -> Optimizer:
    """The optimiser of that name for the parameters of a model."""
    return Adam(model) if name == "adam" else RMSProp(model)


class Stateful(Protocol):
    """Anything that goes on from running values: an optimiser, or a training method."""

    def state(self) -> dict[str, Tensor]:
        """Its running values, by name."""
        ...


@torch.no_grad()
def load_state(stateful: Stateful, state: Mapping[str, Tensor]) -> None:
    """Go on from what ``state`` gave."""
    for name, tensor in stateful.state().items():
        tensor.copy_(state[name])


class Adam:
    """Adam (Kingma and Ba 2015) with its usual constants, for the parameters of one model."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters())
        self._means = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self._squares = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self._steps = {name: torch.zeros((), device=tensor.device) for name, tensor in self._parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the parameters along their gradients, and clear those."""
        names, parameters, gradients = _with_gradients(self._parameters)
        adam(
            parameters,
            gradients,
            [self._means[name] for name in names],
            [self._squares[name] for name in names],
            [],
            [self._steps[name] for name in names],
            fused=parameters[0].device.type in ("cpu", "cuda"),
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        _clear(parameters)

    def state(self) -> dict[str, Tensor]:
        """The running moments and step counts, by name."""
        kinds = {"mean": self._means, "square": self._squares, "step": self._steps}
        return {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}


class RMSProp:
    """RMSProp as TensorFlow has it and the Inception models were trained: decay 0.9, epsilon 1 (Szegedy et al. 2016).

    s <- 0.9 s + 0.1 g^2, from s = 1; p <- p - rate * g / sqrt(s + 1). Torch's own has epsilon outside the root, and
    starts from 0.
    """

    DECAY, EPSILON = 0.9, 1.0

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters())
        self._squares = {name: torch.ones_like(tensor) for name, tensor in self._parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the parameters along their gradients, and clear those."""
        names, parameters, gradients = _with_gradients(self._parameters)
        squares = [self._squares[name] for name in names]
        torch._foreach_mul_(squares, self.DECAY)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.DECAY)
        roots = torch._foreach_add(squares, self.EPSILON)
        torch._foreach_sqrt_(roots)
        torch._foreach_addcdiv_(parameters, gradients, roots, -rate)
        _clear(parameters)

    def state(self) -> dict[str, Tensor]:
        """The running mean squares, by name."""
        return {f"square.{name}": tensor for name, tensor in self._squares.items()}


def _with_gradients(parameters: Mapping[str, Tensor]) -> tuple[list[str], list[Tensor], list[Tensor]]:
    """Names, parameters and gradients of those that have one: a model may have parts that no pass goes through."""
    found = [(name, tensor, tensor.grad) for name, tensor in parameters.items() if tensor.grad is not None]
    return [name for name, _, _ in found], [tensor for _, tensor, _ in found], [grad for _, _, grad in found]


def _clear(parameters: list[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
