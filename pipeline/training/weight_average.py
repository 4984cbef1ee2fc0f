"""Moving average of a model's weights, which is published in their place.

Szegedy et al. (2016, section 8) evaluate "a running average of the parameters computed over time".
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gradshard.storage.errors import GradshardError

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage(AveragedModel):
    """The exponential moving average of a model's weights over the steps of its training.

    Running statistics of batch normalisation are averaged too, as TF-slim, timm and torchvision do; whole numbers, such
    as counts of batches, are copied. After n updates the decay is min(decay, (1 + n) / (10 + n)), as in
    ``tf.train.ExponentialMovingAverage`` where steps are counted: otherwise the initial weights would count to the end
    in the average of a short training.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with a copy of ``model``, on the device that it is on.

        Raises:
            GradshardError: the model cannot be copied.
        """
        try:
            super().__init__(model, multi_avg_fn=self._blend, use_buffers=True)
        except (RuntimeError, TypeError) as error:
            raise GradshardError(
                f"training.average needs a copy of the model, which cannot be made ({error}): set it to null"
            ) from error
        self._decay = decay
        self.module.eval().requires_grad_(False)

    @torch.no_grad()
    def _blend(self, averages: Tensors, values: Tensors, _: Tensor | int) -> None:
        """Move averages, all of one dtype, towards the values of a step."""
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, values)
            return
        # The base class counts on the CPU, so that reading the count does not wait for a GPU.
        updates = int(self.n_averaged)
        torch._foreach_lerp_(averages, values, 1 - min(self._decay, (1 + updates) / (10 + updates)))
