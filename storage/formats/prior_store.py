"""Signs that a training run writes back as it goes: those of every row at the run's last checkpoint.

A generation is the signs of all rows after some step. It is stored either whole, as a plain Zarr group
``00000126.zarr`` whose array ``signs`` is like that of a sign store, or as an increment, ``00000150.safetensors``: the
rows that changed since the generation that it names, so that a checkpoint writes only what was trained on since the one
before. Both appear under their names whole or not at all.

The caller's checkpoint says which generation is valid, and is written after it; the generation before stays untouched
until then. So whenever the run is killed, its last checkpoint has its generation.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import zarr

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints, chunking, sign_arrays
from gradshard.storage.formats.atomic import replace_folder, sync
from gradshard.storage.formats.bitplanes import FILL_BYTE, Planes, packed_bytes
from gradshard.storage.formats.chunking import Layout
from gradshard.storage.formats.shard_reader import DamagedError, Encoding, ShardReader
from gradshard.storage.formats.store_paths import signs_array, signs_file

Rows = npt.NDArray[np.int64]

# Before the first step no row has signs.
START = 0


@dataclass(frozen=True)
class _Increment:
    """Rows, int64 (n,), their signs, (n, 2, B), and the step of the generation before."""

    before: int
    rows: Rows
    planes: Planes


class PriorStore:
    """The generations of one run in a folder of its own.

    Args:
        folder: created when the first generation is saved.
        rows: the dataset's number of rows, N.
        pixels: a row's number of pixels, P.
    """

    def __init__(self, folder: Path, *, rows: int, pixels: int) -> None:
        self.folder = folder
        self._planes = (2, packed_bytes(pixels))
        self._layout: Layout = chunking.plan(rows, math.prod(self._planes))
        # The step of the current generation, its files, and the number of rows in its increments.
        self._last = START
        self._files: list[Path] = []
        self._incremental_rows = 0

    def save(self, step: int, held: Callable[[slice | Rows], Planes], changed: Rows) -> None:
        """Write the generation of a step, as a whole if the increments would contain as many rows as that.

        Args:
            step: a later one than that of the generation before.
            held: returns the packed signs of some rows, uint8 (n, 2, ceil(P / 8)).
            changed: the rows that changed since the generation that was saved or loaded last.
        """
        self._incremental_rows += len(changed)
        if self._incremental_rows >= self._layout.rows:
            self._save_whole(step, held)
            self._files, self._incremental_rows = [self._whole(step)], 0
        else:
            part = {"rows": torch.from_numpy(changed), "planes": torch.from_numpy(held(changed))}
            checkpoints.save(self._increment(step), part, {"before": self._last})
            self._files.append(self._increment(step))
        self._last = step

    def load(self, step: int) -> Planes:
        """Read the generation of a step, uint8 (N, 2, ceil(P / 8)), with 255 in rows that were never written.

        Raises:
            GradshardError: one of its files is missing or damaged.
        """
        increments: list[_Increment] = []
        files: list[Path] = []
        first = step
        while first != START and not self._whole(first).exists():
            files.append(self._increment(first))
            increments.append(self._read_increment(first))
            first = increments[-1].before
        planes = self._read_whole(first)
        for increment in reversed(increments):
            planes[increment.rows] = increment.planes
        self._last, self._files = step, [self._whole(first), *reversed(files)]
        self._incremental_rows = sum(len(increment.rows) for increment in increments)
        return planes

    def remove_others(self) -> None:
        """Remove all files that the generation saved or loaded last does not need, and what killed processes left."""
        for path in self.folder.glob("*"):
            if path in self._files:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _whole(self, step: int) -> Path:
        return self.folder / f"{step:08d}.zarr"

    def _increment(self, step: int) -> Path:
        return self.folder / f"{step:08d}.safetensors"

    def _save_whole(self, step: int, held: Callable[[slice | Rows], Planes]) -> None:
        target = self._whole(step)
        temporary = target.with_suffix(".new")
        shutil.rmtree(temporary, ignore_errors=True)
        group = zarr.open_group(temporary, mode="w-", zarr_format=3)
        array = sign_arrays.create_signs(group, signs_array(0), self._layout, self._planes[1])
        for shard in range(self._layout.shards):
            rows = self._layout.shard_rows(shard)
            array.with_config({"write_empty_chunks": True})[rows] = held(rows)
        for path in temporary.rglob("*"):
            sync(path)
        replace_folder(temporary, target)

    def _read_whole(self, step: int) -> Planes:
        planes = np.full((self._layout.rows, *self._planes), FILL_BYTE, dtype=np.uint8)
        for shard in range(self._layout.shards) if step != START else ():
            rows, path = self._layout.shard_rows(shard), self._whole(step) / signs_file(shard)
            try:
                with path.open("rb", buffering=0) as file:
                    ShardReader(file, shard, Encoding(self._layout)).read(rows.start, rows.stop, planes[rows])
            except (FileNotFoundError, DamagedError) as error:
                raise self._lost(path) from error
        return planes

    def _read_increment(self, step: int) -> _Increment:
        path = self._increment(step)
        if not path.exists():
            raise self._lost(path)
        tensors, record = checkpoints.load(path)
        return _Increment(int(str(record["before"])), tensors["rows"].numpy(), tensors["planes"].numpy())

    def _lost(self, path: Path) -> GradshardError:
        return GradshardError(
            f"{path}, which the checkpoint beside {self.folder} goes on from, is missing or damaged: remove "
            f"{self.folder.parent} and run the same command again, which then begins anew"
        )
