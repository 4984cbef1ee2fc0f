"""Signs of rows, computed from a model: what ``precompute`` stores, and ``store repair`` makes again."""

import torch

from pipeline.crafting import Direction, signed_gradients
from stages.loading import LoadedModel
from storage.datasets.dataset import Split
from storage.signs import bitplanes
from storage.signs.bitplanes import Labels, Planes


def compute_rows(
    model: LoadedModel, split: Split, rows: slice, direction: Direction, device: torch.device
) -> tuple[Planes, Labels]:
    """The packed signs, uint8 (n, 2, ceil(P / 8)), of some rows, and the labels they were taken for, (n,)."""
    images = torch.from_numpy(split.read_images(rows.start, rows.stop)).to(device)
    labels = torch.from_numpy(split.read_labels(rows.start, rows.stop)).to(device)
    signs, chosen = signed_gradients(model.module, images, labels, direction)
    return bitplanes.pack(signs.numpy()), chosen.numpy()
