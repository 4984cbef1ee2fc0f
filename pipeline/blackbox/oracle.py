"""A target as an adaptive adversary sees it (appendix A, definition 3): it answers queries, which are counted."""

import torch
from torch import Tensor, nn

from gradshard.pipeline.gradients.microbatches import in_microbatches


class Oracle:
    """The answers of a model in eval mode, and the number of queries; one image is one query."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.queries = 0

    def labels(self, images: Tensor) -> Tensor:
        """Return the predicted classes of images (n, C, H, W) in [0, 1], int64 (n,)."""
        return self._answer(images).argmax(1)

    def confidences(self, images: Tensor) -> Tensor:
        """Return the softmax of images (n, C, H, W) in [0, 1], float32 (n, classes), as a prediction service does."""
        return self._answer(images).softmax(1)

    def _answer(self, images: Tensor) -> Tensor:
        self.queries += len(images)
        with torch.no_grad():
            return torch.cat(in_microbatches(lambda rows: self._model(images[rows]).float(), images, self._model))
