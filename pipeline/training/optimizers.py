"""Adam, SGD and RMSProp, with their state as plain named tensors.

Making the classes of ``torch.optim`` imports torch's compiler, which takes a second or more of every training stage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from gradshard.pipeline.types import LearningRateSchedule, OptimizerName


@dataclass(frozen=True)
class Optimization:
    """An optimiser, its settings and learning rate, and what is done to the gradients before it steps.

    The schedule ``exponential`` multiplies the learning rate by ``decay`` after every ``decay_epochs`` epochs, ``step``
    after each of the epochs in ``milestones``; ``cosine`` lets it fall along half a cosine, to 0 after the last.
    ``square_decay`` and ``epsilon`` are RMSProp's. Gradients longer than ``clip_norm``, those of all parameters taken
    as one vector, are scaled to that length; then ``weight_decay`` times the weights is added to the gradients.
    """

    optimizer: OptimizerName
    learning_rate: float
    decay: float = 1.0
    decay_epochs: int = 1
    schedule: LearningRateSchedule = "exponential"
    milestones: tuple[int, ...] = ()
    momentum: float = 0.0
    nesterov: bool = False
    square_decay: float = 0.9
    epsilon: float = 1.0
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def rate(self, epoch: int, epochs: int) -> float:
        """Return the learning rate in one of ``epochs`` epochs, counted from 0.

        These are the closed forms of torch's ``StepLR``, ``MultiStepLR`` and ``CosineAnnealingLR``, so that no state of
        a schedule has to be saved.
        """
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        if self.schedule == "step":
            return self.learning_rate * self.decay ** sum(epoch >= milestone for milestone in self.milestones)
        return self.learning_rate * self.decay ** (epoch // self.decay_epochs)


class Optimizer(Protocol):
    """An optimiser of any kind, which changes parameters along their gradients."""

    def step(self, rate: float) -> None:
        """Change the parameters along their gradients, and clear the gradients."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return its running values, by name."""
        ...


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes: all except frozen ones."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def make_optimizer(chosen: Optimization, model: nn.Module) -> Optimizer:
    """Return the optimiser of that name, with its settings, for the parameters of a model."""
    if chosen.optimizer == "sgd":
        return SGD(model, momentum=chosen.momentum, nesterov=chosen.nesterov)
    if chosen.optimizer == "rmsprop":
        return RMSProp(model, decay=chosen.square_decay, epsilon=chosen.epsilon, momentum=chosen.momentum)
    return Adam(model)


@torch.no_grad()
def adjust_gradients(parameters: Sequence[nn.Parameter], chosen: Optimization) -> None:
    """Clip the gradients, then add weight decay to them, as chosen.

    Parameters with one dimension do not decay, as in TF-slim: biases, and the scales and shifts of normalisation.
    """
    if chosen.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, chosen.clip_norm)
    if chosen.weight_decay:
        for parameter in parameters:
            if parameter.grad is not None and parameter.dim() > 1:
                parameter.grad.add_(parameter, alpha=chosen.weight_decay)


class Stateful(Protocol):
    """Anything that resumes from running values: an optimiser, or a training method."""

    def state(self) -> dict[str, Tensor]:
        """Return its running values, by name."""
        ...


@torch.no_grad()
def load_state(stateful: Stateful, state: Mapping[str, Tensor]) -> None:
    """Restore what ``state`` gave."""
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
        """Change the parameters along their gradients, and clear the gradients."""
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
        """Return the running moments and step counts, by name."""
        kinds = {"mean": self._means, "square": self._squares, "step": self._steps}
        return {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}


class SGD:
    """Stochastic gradient descent, with momentum, Nesterov's if asked for (Sutskever et al. 2013)."""

    def __init__(self, model: nn.Module, *, momentum: float = 0.0, nesterov: bool = False) -> None:
        self._momentum, self._nesterov = momentum, nesterov
        self._parameters = dict(model.named_parameters())
        moving = self._parameters if momentum else {}
        self._velocities = {name: torch.zeros_like(tensor) for name, tensor in moving.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the parameters along their gradients, and clear the gradients."""
        names, parameters, gradients = _with_gradients(self._parameters)
        sgd(
            parameters,
            gradients,
            [self._velocities.get(name) for name in names],
            fused=parameters[0].device.type in ("cpu", "cuda"),
            momentum=self._momentum,
            nesterov=self._nesterov,
            dampening=0.0,
            lr=rate,
            weight_decay=0.0,
            maximize=False,
        )
        _clear(parameters)

    def state(self) -> dict[str, Tensor]:
        """Return the velocities, by name; nothing without momentum."""
        return {f"velocity.{name}": tensor for name, tensor in self._velocities.items()}


class RMSProp:
    """TensorFlow's RMSProp, by which the Inception models were trained: decay 0.9, epsilon 1 (Szegedy et al. 2016).

    s <- 0.9 s + 0.1 g^2, from s = 1; v <- momentum v + rate * g / sqrt(s + 1); p <- p - v. Torch's RMSProp has epsilon
    outside the root, starts from 0, and multiplies all of v by the current rate.
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.9, epsilon: float = 1.0, momentum: float = 0.0) -> None:
        self._decay, self._epsilon, self._momentum = decay, epsilon, momentum
        self._parameters = dict(model.named_parameters())
        self._squares = {name: torch.ones_like(tensor) for name, tensor in self._parameters.items()}
        moving = self._parameters if momentum else {}
        self._velocities = {name: torch.zeros_like(tensor) for name, tensor in moving.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the parameters along their gradients, and clear the gradients."""
        names, parameters, gradients = _with_gradients(self._parameters)
        squares = [self._squares[name] for name in names]
        torch._foreach_mul_(squares, self._decay)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self._decay)
        roots = torch._foreach_add(squares, self._epsilon)
        torch._foreach_sqrt_(roots)
        if self._momentum:
            velocities = [self._velocities[name] for name in names]
            torch._foreach_mul_(velocities, self._momentum)
            torch._foreach_addcdiv_(velocities, gradients, roots, rate)
            torch._foreach_sub_(parameters, velocities)
        else:
            torch._foreach_addcdiv_(parameters, gradients, roots, -rate)
        _clear(parameters)

    def state(self) -> dict[str, Tensor]:
        """Return the running mean squares, and with momentum the velocities, by name."""
        kinds = {"square": self._squares, "velocity": self._velocities}
        return {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}


def _with_gradients(parameters: Mapping[str, Tensor]) -> tuple[list[str], list[Tensor], list[Tensor]]:
    """Return names, parameters and gradients of those that have one: some parts of a model may take part in no pass."""
    found = [(name, tensor, tensor.grad) for name, tensor in parameters.items() if tensor.grad is not None]
    return [name for name, _, _ in found], [tensor for _, tensor, _ in found], [grad for _, _, grad in found]


def _clear(parameters: list[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
