"""Pixels at which the sign of a float32 gradient is certain, from float64 and without code of the pipeline.

The gradient of a loss at a pixel is the sum over the logits j of c_j J_ji, with J_ji = dz_j / dx_i. Its float32
error is some units of u = 2^-24, relative to sum_j w_j |J_ji|, where w_j is the size of the numbers that give c_j:
softmax cross-entropy has c = p - e_t, a difference of numbers up to w = p + e_t, which cancel on confident examples. A
softmax carries the rounding of its logits, at most a few u max|z|. At every pixel the backward pass adds up terms as
large as those of the strongest pixel. So the error is at most

    C u (1 + max|z|) max_i sum_j w_j |J_ji|

for each example, with a constant C for the lengths of the sums: 8, four times what was measured on 600 gradients of
three trained models D. A test checks the pipeline's own gradients against it. Where a hidden unit is itself within
rounding of 0, ReLU may fall either way and no bound holds.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

Loss = Literal["exact", "cross_entropy", "hinge"]

UNIT = 2.0**-24
CONSTANT = 8


@dataclass(frozen=True)
class Certainty:
    """The float64 gradient of each example, and how far the signs of a float32 one can be trusted.

    ``grad`` is the gradient (N, C, H, W); ``bound`` limits the error of a float32 one (N, 1, 1, 1); ``kink`` says
    whether a hidden unit is at the kink of its ReLU, bool (N, 1, 1, 1).
    """

    grad: Tensor
    bound: Tensor
    kink: Tensor

    @property
    def sure(self) -> Tensor:
        """The pixels whose sign float32 cannot get wrong, bool (N, C, H, W)."""
        return (self.grad.abs() > self.bound) & ~self.kink


@dataclass
class Reference:
    """A float64 copy of a model that judges gradients of one loss; with momentum, of their sum (Dong et al. 2018)."""

    model: nn.Module
    labels: Tensor
    loss: Loss
    hidden: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self.model).double()
        for module in self.model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(lambda _, inputs: self.hidden.append(inputs[0].detach().flatten(1)))

    def at(self, images: Tensor) -> Certainty:
        """Return the certainty of the gradient at images (N, C, H, W)."""
        self.hidden.clear()
        inputs = images.double().requires_grad_()
        logits = self.model(inputs)
        jacobian = torch.stack(
            [torch.autograd.grad(z.sum(), inputs, retain_graph=True)[0].flatten(1) for z in logits.unbind(1)], dim=1
        )
        logits = logits.detach()
        others, own = self._coefficients(logits), one_hot(self.labels, logits.shape[1]).double()
        size = 1 + logits.abs().amax(1)
        grad = torch.einsum("nj,nji->ni", others - own, jacobian)
        bound = CONSTANT * UNIT * size * torch.einsum("nj,nji->ni", others + own, jacobian.abs()).amax(1)
        kink = torch.stack([h.abs().amin(1) <= CONSTANT * UNIT * h.abs().amax(1) for h in self.hidden]).any(0)
        each = (-1, *[1] * (images.ndim - 1))
        return Certainty(grad.view(images.shape), bound.view(each), kink.view(each))

    def _coefficients(self, logits: Tensor) -> Tensor:
        """Return d loss / d z_j, without the -1 of the label's own logit."""
        if self.loss == "cross_entropy":
            return logits.softmax(1)
        rest = logits.scatter(1, self.labels.unsqueeze(1), -torch.inf)
        return rest.softmax(1) if self.loss == "exact" else one_hot(rest.argmax(1), logits.shape[1]).double()

    def along(self, iterates: list[Tensor], *, momentum: bool) -> Iterator[Certainty]:
        """Yield the certainty of each step's direction: the gradient or, with momentum, the sum of unit gradients."""
        so_far: Certainty | None = None
        for images in iterates:
            now = self.at(images)
            if momentum:
                # A gradient over its own L1 norm, whose error is at most the sum of its pixels' errors.
                norm = now.grad.flatten(1).abs().sum(1).view(now.bound.shape)
                unit, error = now.grad / norm, now.bound / norm
                error = error + unit.abs() * error * unit[0].numel()
                now = Certainty(unit, error, now.kink)
                if so_far is not None:
                    now = Certainty(so_far.grad + unit, so_far.bound + error, so_far.kink | now.kink)
                so_far = now
            yield now
