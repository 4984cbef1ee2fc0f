"""Errors of models trained on adversarial images from PNG files, over those of models trained from sign stores.

PGD in ten steps at epsilon 0.3 by two sources, a small convolutional net and the paper's D, over 4,000 digits. Theirs:
every adversarial image rounded to 8 bits in a PNG file of its own and read back. Ours: a store of the ternary signs of
its end. Everything else is the same: the net, what it begins with, the order of rows, the source of each batch, half of
the loss on clean images and half on adversarial ones, Adam, twelve epochs. Five seeds, each a ratio of errors on 1,000
test digits: clean, under PGD of a source that was trained on, and under PGD of the paper's B, which no training saw.
A spread on both sides of 1 says that seeds matter more than which way it is.

What it does not show: another dataset or net; images larger than digits, where 8 bits weigh more because epsilon is
smaller; or time, which `png` measures.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.png import PngImages, write_pngs
from benchmarks.ratios import Claim, claim
from benchmarks.rows import LabelledSigns, stored
from gradshard.pipeline import models
from gradshard.pipeline.attacks.pgd import pgd
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.dataset import Images
from gradshard.storage.ingest.sources import mnist5k
from gradshard.storage.streaming.shuffle import ShuffleOrder

EPSILON, STEPS, BATCH = 0.3, 10, 64
_SHAPE, _CLASSES = (1, 28, 28), 10
_CRAFTED = 500

# The adversarial images of some rows by a source: its number, rows and clean images to float32 in [0, 1].
Adversarial = Callable[[int, np.ndarray, Tensor], Tensor]


def measure(*, quick: bool = False) -> list[Claim]:
    """Train both ways with each seed, and compare the errors."""
    seeds, epochs, rows = (1, 1, 256) if quick else (5, 12, 4_000)
    train, test = (_digits(split, rows) for split in ("train", "test"))
    trained = {
        name: _trained(models.create_model(name, _SHAPE, _CLASSES, seed=seed), *train, seed=seed, epochs=epochs)
        for seed, name in enumerate(("small_cnn", "D", "B"), start=100)
    }
    seen, unseen = [trained["small_cnn"], trained["D"]], trained["B"]
    attacked = {
        "clean": to_unit_range(test[0]),
        "PGD from a source trained on": _crafted(seen[0], *test),
        "PGD from a source that no training saw": _crafted(unseen, *test),
    }
    with tempfile.TemporaryDirectory() as folder:
        kept = [_kept(model, *train, Path(folder, str(number))) for number, model in enumerate(seen)]
    ways: Mapping[str, Adversarial] = {
        "PNG": lambda source, rows, _: to_unit_range(torch.from_numpy(kept[source][0][rows])),
        "store": lambda source, rows, images: perturb(
            images, unpack_signs(torch.from_numpy(kept[source][1][rows]), images.shape), EPSILON
        ),
    }
    ratios: dict[str, list[float]] = {name: [] for name in attacked}
    for seed in range(seeds):
        robust = {}
        for way, adversarial in ways.items():
            net = models.create_model("small_cnn", _SHAPE, _CLASSES, seed=seed)
            robust[way] = _trained(net, *train, seed=seed, epochs=epochs, adversarial=adversarial)
        for name, images in attacked.items():
            wrong = {way: _errors(net, images, test[1]) for way, net in robust.items()}
            ratios[name].append(wrong["PNG"] / wrong["store"])
    return [claim(f"error, {name}: trained from PNG files over trained from stores", of) for name, of in ratios.items()]


def _digits(split: str, rows: int) -> tuple[Tensor, Tensor]:
    images, labels = mnist5k().splits[split]
    return torch.from_numpy(images[:][:rows]), torch.from_numpy(labels[:rows].astype(np.int64))


def _trained(
    net: nn.Module, images: Tensor, labels: Tensor, *, seed: int, epochs: int, adversarial: Adversarial | None = None
) -> nn.Module:
    """Train on digits, and on their adversarial versions where there are such; in eval mode."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    torch.manual_seed(seed)
    for epoch in range(epochs):
        order = ShuffleOrder(len(images), chunk=1, window=len(images), seed=seed, epoch=epoch)
        for number, rows in enumerate(order.batches(BATCH)):
            clean = to_unit_range(images[rows])
            loss = functional.cross_entropy(net(clean), labels[rows])
            if adversarial is not None:
                perturbed = net(adversarial(number % 2, rows, clean))
                loss = 0.5 * loss + 0.5 * functional.cross_entropy(perturbed, labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return net.eval().requires_grad_(False)


def _crafted(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Craft PGD on what the net says, as training does: no label leaks into the perturbation."""
    generator, ends = torch.Generator().manual_seed(0), []
    for part in torch.split(to_unit_range(images), _CRAFTED):
        noise = 2 * torch.rand((1, *part.shape), generator=generator) - 1
        step = 2.5 * EPSILON / STEPS
        ends.append(pgd(net, part, net(part).argmax(1), epsilon=EPSILON, step=step, steps=STEPS, noise=noise))
    return torch.cat(ends)


def _kept(net: nn.Module, images: Tensor, labels: Tensor, folder: Path) -> tuple[Images, bitplanes.Planes]:
    """Write a source's adversarial images as PNG files and its signs as a store, and read both back."""
    ends = _crafted(net, images, labels)
    write_pngs((ends * 255).round().to(torch.uint8).numpy(), folder / "png")
    files = PngImages([folder / "png"], labels.tolist())
    moved = (ends - to_unit_range(images)) / EPSILON
    planes = bitplanes.pack((moved.sign() * (moved.abs() >= 0.5)).flatten(1).to(torch.int8).numpy())
    _, store = stored(LabelledSigns(images.numpy(), labels.numpy(), planes, _CLASSES), folder)
    return np.stack([files[row][0].numpy() for row in range(len(files))]), store.read(0, len(files))


@torch.no_grad()
def _errors(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Give the share of images that are classified wrong, one more than counted, so that it is never 0."""
    return (int((net(images).argmax(1) != labels).sum()) + 1) / len(labels)


if __name__ == "__main__":
    for measured in measure():
        print(measured.line())
