"""Models and datasets as other people have them, on real digits; each test in a folder of its own."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from gradshard.pipeline.loading import compute_signs
from tests.helpers.trained import train_on

ROWS = 700


class Digits(Dataset):
    """Somebody's dataset: floats in [0, 1] and labels, made when they are asked for."""

    def __init__(self, images, labels, change=None):
        self.images, self.labels, self.change = images, labels, change

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        image = torch.from_numpy(self.images[row]).float() / 255
        return image if self.change is None else self.change(image), int(self.labels[row])


def jittered(image):
    return image if torch.rand(()) < 0.5 else image.flip(-1)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rows(digits):
    """700 digits as arrays."""
    images, labels = digits["train"]
    return images[:ROWS], labels[:ROWS]


@pytest.fixture
def base(rows):
    return Digits(*rows)


@pytest.fixture(scope="session")
def model(digits) -> nn.Module:
    """A small trained model of the digits, that normalises nothing."""
    return train_on(digits, "D", seed=1, epochs=1, rows=1000)


@pytest.fixture
def store(model, base):
    """The store of the model over the digits."""
    return compute_signs(model, base, "signs/D.zarr", name="digits")


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def signs_of(store, row):
    """The signs of a row, int8 (1, 28, 28), by NumPy alone."""
    bits = np.unpackbits(store.read(row, row + 1)[0], axis=-1, count=784).view(np.int8)
    return (2 * bits[0] + bits[1] - 1).reshape(1, 28, 28)
