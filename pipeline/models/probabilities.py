"""Logits of a model that gives probabilities."""

import torch
from torch import Tensor, nn


class LogProbabilities(nn.Module):
    """A model whose probabilities (N, classes) become logits: their logarithms, which softmax turns back.

    A probability of 0 counts as the smallest normal number of single precision, so that no logit is infinite.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images in [0, 1], (N, C, H, W)."""
        probabilities: Tensor = self.model(images).float()
        return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
