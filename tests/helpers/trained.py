"""A model trained on real digits in a second or two."""

import torch
from torch import nn
from torch.nn import functional

from gradshard.pipeline import models
from gradshard.pipeline.gradients.signs import to_unit_range


def train_on(digits: dict, architecture: str, *, seed: int, epochs: int = 4, rows: int = 2000) -> nn.Module:
    """Train an architecture on the first rows of the training digits; return it frozen, in eval mode."""
    images, labels = (torch.from_numpy(part[:rows]) for part in digits["train"])
    images, labels = to_unit_range(images), labels.long()
    model = models.create_model(architecture, (1, 28, 28), 10, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(rows, generator=generator).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)
