"""The four files of an MNIST-like dataset, in the IDX format."""

import gzip
import struct

import numpy as np


def idx_bytes(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx_folder(folder, *, shape=(12, 7), classes=4, zipped=False, dotted=False):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, rows in (("train", 40), ("t10k", 10)):
        images, labels = rng.integers(0, 256, (rows, *shape)), rng.permutation(np.arange(rows) % classes)
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            name = name.replace("-idx", ".idx") if dotted else name
            content = idx_bytes(array)
            path = folder / (f"{name}.gz" if zipped else name)
            path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


def write_digits(folder, splits):
    """Write images (N, 1, H, W) and labels (N,), by split, as the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = splits[split]
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images[:, 0]))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
