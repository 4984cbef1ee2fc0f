"""Any map-style dataset with the signs of stores beside each image, for any sampler and any number of workers."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gradshard.pipeline.gradients.random_step import DrawnStep, RandomStep, random_step, step_after
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.pipeline.loading.guard import Check, check_rows
from gradshard.pipeline.loading.places import CACHE, Place, open_place
from gradshard.pipeline.loading.planes_file import open_planes, planes_file
from gradshard.pipeline.loading.row_hashes import OnRows
from gradshard.pipeline.loading.rows import Transform, as_rows, to_pixels
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Planes
from gradshard.storage.streaming.windows import of_turn

Augment = Callable[[Any], Any]

_ONE = ""


class SignedDataset(Dataset[tuple[Any, Any, Any]]):
    """Rows ``(image, label, signs)`` of a dataset and of sign stores that were made for it.

    An image that is a tensor keeps its dtype and values; PIL images and arrays become uint8 tensors (C, H, W). Signs
    are packed, uint8 (2, ceil(P / 8)), or (4, ceil(P / 8)) if they begin after a random step, whose two planes follow
    theirs: one tensor for one store, a mapping of tensors for several. ``perturb`` steps along a batch of packed signs,
    on any device, and ``unpack`` unpacks it.

    From a store of several copies, rows have the first copy, and after ``set_epoch`` that epoch's copy.
    """

    def __init__(
        self,
        base: Any,
        stores: Place | Mapping[str, Place],
        *,
        transform: Transform | None = None,
        columns: tuple[str, str] | None = None,
        augment: Augment | None = None,
        check: Check = "whole",
        reference: str | Path | None = None,
        cache: str | Path = CACHE,
        workers: int = 0,
        on_rows: OnRows | None = None,
    ) -> None:
        """Open the stores, and check that they were made for this dataset.

        Args:
            base: a map-style dataset of pairs (image, label), one split of a Hugging Face dataset, or arrays (images,
                labels); in the order of the store.
            stores: one store, as a path, a URL, or open; or several by name.
            transform: the dataset's own transform of an image, as for ``compute_signs``, without randomness.
            columns: the columns of image and label, if rows are mappings.
            augment: a transform of torchvision's v2 that moves images and signs together.
            check: ``whole`` checks all rows against the stores' digest, once; ``sample`` checks a sample each time.
            reference: the prepared dataset, to name a row that differs.
            cache: the folder for files that are made once: plain files of signs, hashes of rows. It may be deleted at
                any time.
            workers: how many processes read the rows for a whole check.
            on_rows: called with the numbers of rows read and of all rows, in a whole check.

        Raises:
            GradshardError: a store is missing, damaged, or made for other rows; or the dataset changes from one reading
                to the next.
        """
        self._rows, self._augment = as_rows(base, transform, columns), augment
        self._single = not isinstance(stores, Mapping)
        places = stores if isinstance(stores, Mapping) else {_ONE: stores}
        if not places:
            raise GradshardError("no stores: name one at least")
        folder = Path(cache).resolve()
        opened = {source: open_place(place, folder) for source, place in places.items()}
        checked: set[str] = set()
        for store in opened.values():
            record = store.manifest.dataset
            if record.digest not in checked:
                check_rows(
                    self._rows,
                    record,
                    where=store.where,
                    cache=folder,
                    check=check,
                    reference=None if reference is None else Path(reference),
                    workers=workers,
                    on_rows=on_rows,
                )
            checked.add(record.digest)
        self._shape = record.sample_shape
        self._copies = {
            source: tuple(_Copy(planes_file(copy, folder), random_step(copy)) for copy in store.in_turn)
            for source, store in opened.items()
        }
        self._steps = {source: store.manifest.direction.step for source, store in opened.items()}
        self._planes: dict[Path, Planes] = {}
        # In shared memory, so that workers that outlive an epoch see the next.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._share_epoch()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> tuple[Any, Any, Any]:
        """Return a row: its image, its label as the dataset has it, and its packed signs.

        Raises:
            GradshardError: the transform ``augment`` does not suit signs.
        """
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row = operator.index(row) % len(self)
        image, label = self._rows.sample(row)
        if not isinstance(image, Tensor):
            # Copied: an array may be a view that is turned round, or one that an augmentation would change in place.
            image = torch.from_numpy(np.array(to_pixels(image, where=f"row {row} of the dataset"), order="C"))
        image = image[None] if image.ndim == 2 else image
        turn = int(self._epoch)
        signs = {source: self._read(of_turn(copies, turn), row) for source, copies in self._copies.items()}
        if self._augment is not None:
            image, signs = _augmented(self._augment, image, signs, self._shape)
        return image, label, signs[_ONE] if self._single else signs

    def set_epoch(self, epoch: int) -> None:
        """Select copy number ``epoch`` modulo K of stores of K copies, in every process that reads.

        As with ``DistributedSampler``, call it before you iterate over the epoch's loader.
        """
        self._epoch.fill_(epoch)

    def perturb(self, images: Tensor, signs: Tensor, epsilon: float | Tensor, source: str = _ONE) -> Tensor:
        """Return the adversarial examples of a batch, each within epsilon of its image, float (n, C, H, W).

        If the store's signs begin after a random step, that step is made first.

        Args:
            images: float (n, C, H, W) in [0, 1], those that the signs came with.
            signs: packed, uint8 (n, 2 or 4, ceil(P / 8)), on the device of the images.
            epsilon: how far, in units of pixels; a number or (n, 1, 1, 1).
            source: the name of their store, if there are several.

        Raises:
            GradshardError: epsilon is no larger than the random step, the images are not floats, or the signs are not
                of that store.
        """
        along = self._along(signs, images, source)
        step = self._copies[source][0].step
        drawn = None if step is None else DrawnStep(unpack_signs(signs[:, 2:], images.shape), step.alpha)
        return step_after(images, along, epsilon, drawn)

    def unpack(self, signs: Tensor, images: Tensor, source: str = _ONE) -> Tensor:
        """Return which way to step for a batch of packed signs: +1, 0 or -1, float32 in the shape of the images.

        Adversarial examples are ``perturb(images, dataset.unpack(signs, images), epsilon)``: signs of gradients of the
        least likely label are already negated, so that the step goes towards it.

        Args:
            signs: uint8 (n, 2, ceil(P / 8)), on any device.
            images: (n, C, H, W), those that the signs came with.
            source: the name of their store, if there are several.

        Raises:
            GradshardError: the signs begin after a random step, which would be left out, or are not of that store.
        """
        along = self._along(signs, images, source)
        if self._copies[source][0].step is not None:
            raise GradshardError(
                "these signs begin after a random step, which unpacking would leave out: use the dataset's perturb"
            )
        return along

    def _along(self, planes: Tensor, images: Tensor, source: str) -> Tensor:
        if source not in self._steps:
            raise GradshardError(f"no store {source!r}: name one of {', '.join(self._steps)}")
        wanted = 2 if self._copies[source][0].step is None else 4
        if planes.shape[1] != wanted:
            raise GradshardError(
                f"the signs have {planes.shape[1]} planes a row, but those of {source or 'the store'} have {wanted}: "
                "name by source the store that they came from"
            )
        return unpack_signs(planes[:, :2], images.shape, scale=float(self._steps[source]))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, without open files: it opens them by their names."""
        return {**self.__dict__, "_planes": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a state; a copy has an epoch of its own, which its workers share."""
        self.__dict__.update(state)
        self._share_epoch()

    def _share_epoch(self) -> None:
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def _read(self, copy: "_Copy", row: int) -> Tensor:
        """Read a row's planes, followed by those of the random step that precedes its signs, if any."""
        if copy.file not in self._planes:
            self._planes[copy.file] = open_planes(copy.file, len(self))
        # Copied, because the file may not be written to, and a batch copies rows anyway.
        planes = torch.from_numpy(np.array(self._planes[copy.file][row]))
        if copy.step is None:
            return planes
        return torch.cat([planes, torch.from_numpy(copy.step.planes(math.prod(self._shape), [row])[0])])


@dataclass(frozen=True)
class _Copy:
    """One copy of a store: its packed signs in a plain file, and the random step that precedes them, if any."""

    file: Path
    step: RandomStep | None


def _augmented(
    augment: Augment, image: Tensor, signs: dict[str, Tensor], shape: tuple[int, int, int]
) -> tuple[Any, dict[str, Tensor]]:
    """Return the image and the packed signs, moved together."""
    try:
        from gradshard.pipeline.loading.sign_tensors import moved
    except ModuleNotFoundError as error:
        raise GradshardError(
            "augment= needs the package torchvision: install it by `pip install 'gradshard[torchvision]'`"
        ) from error
    # By source and number of the pair of planes: 0 for signs, 1 for a random step.
    unpacked = {
        (source, number): torch.from_numpy(bitplanes.unpack(pair.numpy()[np.newaxis], math.prod(shape))).view(shape)
        for source, planes in signs.items()
        for number, pair in enumerate(planes.view(-1, 2, planes.shape[-1]))
    }
    image, views = moved(augment, image, unpacked)
    packed: dict[str, list[Tensor]] = {source: [] for source in signs}
    for (source, _), values in views.items():
        packed[source].append(torch.from_numpy(bitplanes.pack(values.flatten().numpy()[np.newaxis]))[0])
    return image, {source: torch.cat(pairs) for source, pairs in packed.items()}
