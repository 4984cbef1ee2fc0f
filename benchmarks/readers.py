"""Readers of windows as one writes them by hand on h5py, TensorStore or zarr: the other thing to measure beside.

They go through windows of shuffled chunks as ours does, and no less cleverly: while one window is handed out, a thread
reads the next into memory that is used again and shuffles all of it at once, and a batch is a slice. They take no order
from their caller, no signs of several stores, and check nothing but what their library checks. zarr and TensorStore
read our own files; HDF5's is written without chunks or compression, which is how it reads fastest.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

from benchmarks.loaders import BATCH, Batch, Bytes, Epoch, Loader, Place
from benchmarks.rows import SIGNS, LabelledSigns, opened
from gradshard.storage.streaming.shuffle import ShuffleOrder

Stretches = Callable[[list[slice], Bytes, Bytes], None]


def windowed(read: Stretches, labels: npt.NDArray[np.int64], place: Place) -> Epoch:
    """Shuffled batches out of windows; ``read`` reads stretches of rows, one after the other, into two arrays."""
    most = place.chunk * place.window
    images, planes = (np.empty((most, *s), dtype=np.uint8) for s in (place.sample_shape, place.planes_shape))
    ready = [(np.empty_like(images), np.empty_like(planes)) for _ in range(2)]
    seeds = iter(range(1 << 30))

    def window(order: ShuffleOrder, number: int) -> tuple[Bytes, npt.NDArray[np.int64], Bytes]:
        chunks = order.chunks[number * place.window : (number + 1) * place.window].tolist()
        stretches = [slice(c * place.chunk, min((c + 1) * place.chunk, place.rows)) for c in chunks]
        rows = np.concatenate([np.arange(s.start, s.stop) for s in stretches])
        read(stretches, images, planes)
        shuffled = np.random.default_rng((order.seed, number)).permutation(len(rows))
        outs = [out[: len(rows)] for out in ready[number % 2]]
        for values, out in zip((images, planes), outs, strict=True):
            np.take(values, shuffled, axis=0, out=out, mode="clip")
        return outs[0], labels[rows[shuffled]], outs[1]

    def epoch() -> Iterator[Batch]:
        order = ShuffleOrder(rows=place.rows, chunk=place.chunk, window=place.window, seed=next(seeds), epoch=0)
        windows = -(-len(order.chunks) // place.window)
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(window, order, 0)
            for number in range(windows):
                current = coming.result()
                if number + 1 < windows:
                    coming = ahead.submit(window, order, number + 1)
                for start in range(0, len(current[1]), BATCH):
                    yield Batch(*(array[start : start + BATCH] for array in current))

    return epoch


def _open_zarr(place: Place) -> Epoch:
    stored_images = zarr.open_array(place.ours / "data.zarr/train/images", mode="r")
    stored_planes = zarr.open_array(place.ours / f"{SIGNS}.zarr/signs", mode="r")

    def read(stretches: list[slice], images: Bytes, planes: Bytes) -> None:
        start = 0
        for rows in stretches:
            stop = start + rows.stop - rows.start
            images[start:stop] = np.asarray(stored_images[rows])
            planes[start:stop] = np.asarray(stored_planes[rows])
            start = stop

    return windowed(read, opened(place.ours)[0].read_labels(), place)


def _open_tensorstore(place: Place) -> Epoch:
    import tensorstore

    arrays = [
        tensorstore.open({"driver": "zarr3", "kvstore": f"file://{place.ours / name}/"}, read=True, open=True).result()
        for name in ("data.zarr/train/images", f"{SIGNS}.zarr/signs")
    ]

    def read(stretches: list[slice], images: Bytes, planes: Bytes) -> None:
        start, pending = 0, []
        for rows in stretches:
            stop = start + rows.stop - rows.start
            for array, out in zip(arrays, (images, planes), strict=True):
                pending.append(tensorstore.array(out[start:stop]).write(array[rows]))
            start = stop
        for done in pending:
            done.result()

    return windowed(read, opened(place.ours)[0].read_labels(), place)


def _write_h5py(rows: LabelledSigns, folder: Path) -> None:
    import h5py

    with h5py.File(str(folder) + ".h5", "w") as file:
        for name in ("images", "labels", "planes"):
            file[name] = getattr(rows, name)


def _open_h5py(place: Place) -> Epoch:
    import h5py

    file = h5py.File(str(place.folder) + ".h5", "r")

    def read(stretches: list[slice], images: Bytes, planes: Bytes) -> None:
        start = 0
        for rows in stretches:
            stop = start + rows.stop - rows.start
            file["images"].read_direct(images, rows, np.s_[start:stop])
            file["planes"].read_direct(planes, rows, np.s_[start:stop])
            start = stop

    return windowed(read, file["labels"][:], place)


def _nothing(rows: LabelledSigns, folder: Path) -> None:
    """Write nothing: our own files are there already."""


BY_HAND = (
    Loader("zarr", "zarr", _nothing, _open_zarr),
    Loader("TensorStore", "tensorstore", _nothing, _open_tensorstore),
    Loader("h5py", "h5py", _write_h5py, _open_h5py),
)
