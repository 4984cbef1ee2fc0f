"""Float32 buffers of perturbations, as the methods' authors keep them: what two bits a pixel are held against."""

import torch
from torch import Tensor

from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.priors import Kept
from gradshard.storage.streaming.shuffle import Rows


class FloatBuffer:
    """The perturbation of each of ``rows`` rows in units of epsilon, float32 (N, C, H, W), just as it was."""

    def __init__(self, rows: int, sample_shape: tuple[int, ...], *, device: torch.device) -> None:
        self.values = torch.zeros((rows, *sample_shape), device=device)

    def __len__(self) -> int:
        return len(self.values)

    def encode(self, images: Tensor, perturbed: Tensor, epsilon: float | Tensor) -> Tensor:
        """Give the perturbations themselves, (n, C, H, W)."""
        return (perturbed - images) / epsilon

    def read(self, rows: Rows) -> Tensor:
        """Give the perturbations of some rows, (n, C, H, W)."""
        return self.values[torch.from_numpy(rows)]

    def write(self, kept: Kept, total: int, ranks: Rank) -> None:
        """Keep the perturbations of this rank's part of a batch of ``total`` rows, and those of the other ranks'."""
        self.values[ranks.gathered(torch.from_numpy(kept.rows), total)] = ranks.gathered(kept.values, total)
