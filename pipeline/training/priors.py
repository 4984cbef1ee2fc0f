"""The last perturbation of every training image, kept for the next epoch in two bits per pixel.

The published code of methods that start from it keeps float32 buffers (FGSM-EP and FGSM-PGI, Jia et al. 2022; ATTA,
Zheng et al. 2020). But the perturbations of the first two are -epsilon, 0 and +epsilon, except for what clipping to
[0, 1] cuts off, and clipping cuts that off again; so their signs are enough. They are kept in the coordinates of the
image as it is stored: the part that a crop or mirror image showed is moved back, and the part that it hid stays as it
was (ATTA's inverse augmentation).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from gradshard.pipeline.gradients.pack import pack_signs
from gradshard.pipeline.gradients.perturb import nearest_signs
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.pipeline.training.distributed import Rank
from gradshard.storage.formats.bitplanes import FILL_BYTE, Planes, packed_bytes
from gradshard.storage.streaming.shuffle import Rows

_SHARED_ROWS = 1 << 14


class Kept(NamedTuple):
    """Perturbations to be kept: those of some rows of a dataset, int64 (n,), as a buffer encodes them, (n, C, H, W).

    ``momentum`` is that of their gradients, float32 (n, C, H, W), if the method has one.
    """

    rows: Rows
    values: Tensor
    momentum: Tensor | None = None


def joined(parts: Sequence[Kept]) -> Kept:
    """Join the perturbations to be kept of the pieces of a batch."""
    momenta = [part.momentum for part in parts if part.momentum is not None]
    return Kept(
        np.concatenate([part.rows for part in parts]),
        torch.cat([part.values for part in parts]),
        torch.cat(momenta) if momenta else None,
    )


class PriorBuffer(Protocol):
    """A buffer of one perturbation per row, in units of epsilon."""

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def encode(self, images: Tensor, perturbed: Tensor, epsilon: float | Tensor) -> Tensor:
        """Encode the perturbations of some images, (n, C, H, W), as the buffer keeps them."""
        ...

    def read(self, rows: Rows) -> Tensor:
        """Return the perturbations of some rows, float32 (n, C, H, W)."""
        ...

    def write(self, kept: Kept, total: int, ranks: Rank) -> None:
        """Keep the perturbations of this rank's part of a batch of ``total`` rows, and those of the other ranks'."""
        ...


class SignBuffer:
    """Perturbations as signs, packed into two bit planes; every rank holds those of all rows.

    Args:
        rows: N, of the dataset.
        sample_shape: (C, H, W) of a row.
        device: where the signs are used, and also kept, unless they do not fit there: then in the host's memory.
    """

    def __init__(self, rows: int, sample_shape: tuple[int, ...], *, device: torch.device) -> None:
        self._shape, self._device = torch.Size(sample_shape), device
        shape = (rows, 2, packed_bytes(self._shape.numel()))
        self.planes = torch.full(shape, FILL_BYTE, dtype=torch.uint8, device=_home(shape, device))
        self._changed: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def pixels(self) -> int:
        """Values per row, C·H·W."""
        return self._shape.numel()

    def encode(self, images: Tensor, perturbed: Tensor, epsilon: float | Tensor) -> Tensor:
        """Return the signs that come nearest to the perturbations of some images, (n, C, H, W)."""
        return nearest_signs(images, perturbed, epsilon)

    def read(self, rows: Rows) -> Tensor:
        """Return the signs of some rows, float32 (n, C, H, W); 2 where none were written yet."""
        planes = self.planes[torch.from_numpy(rows).to(self.planes.device)].to(self._device)
        return unpack_signs(planes, torch.Size((len(rows), *self._shape)))

    def write(self, kept: Kept, total: int, ranks: Rank) -> None:
        """Keep the signs of this rank's part of a batch of ``total`` rows, and those of the other ranks'.

        Raises:
            GradshardError: another rank is gone.
        """
        rows = ranks.gathered(torch.from_numpy(kept.rows).to(self._device), total).to(self.planes.device)
        self.planes[rows] = ranks.gathered(pack_signs(kept.values), total).to(self.planes.device)
        if ranks.first:  # only its checkpoints ask for them
            self._changed.append(rows)

    def held(self, rows: slice | Rows) -> Planes:
        """Return the packed signs of some rows, uint8 (n, 2, ceil(P / 8)), in the host's memory."""
        return self.planes[rows if isinstance(rows, slice) else torch.from_numpy(rows)].cpu().numpy()

    def take_changes(self) -> Rows:
        """Return the rows that were written since the last call, each once, in ascending order."""
        changed, self._changed = self._changed, []
        return np.unique(torch.cat(changed).cpu().numpy()) if changed else np.empty(0, dtype=np.int64)

    def load(self, planes: Planes) -> None:
        """Restore packed signs of all rows, uint8 (N, 2, ceil(P / 8))."""
        self.planes.copy_(torch.from_numpy(planes))

    def share(self, ranks: Rank) -> None:
        """Give every rank the signs of the first.

        Raises:
            GradshardError: another rank is gone.
        """
        for start in range(0, len(self.planes), _SHARED_ROWS):
            part = self.planes[start : start + _SHARED_ROWS]
            part.copy_(ranks.shared(part.to(self._device)))


def _home(shape: Iterable[int], device: torch.device) -> torch.device:
    if device.type == "cuda" and np.prod([*shape]) > 0.5 * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device
