"""Transferred adversarial images kept as PNG files, the way of PubDef (arXiv 2310.17645), beside our sign stores.

Its layout is built anew from the paper's description: one PNG file for every adversarial image, a folder for each
attack and copy, read by PyTorch's DataLoader with Pillow in two processes. Ours is a store beside the dataset; each row
of an epoch is read once. Images of CIFAR-10 at epsilon 8/256 and photographs of 224 x 224 at 4/256. Bytes are those of
one copy, PNG over ours: of random signs, which neither compresses; of FGSM by a small convolutional net that was
trained on the CIFAR-10 images for a hundred steps; and of its PGD in ten steps, of whose end we keep the sign, 0 where
a pixel moved by less than half of epsilon. The clean images, which training needs either way, count for nobody.

Rows a second are those of uint8 batches of 64 in memory, as they are sent to a device, of random signs, in turn in one
run, the files in the system's cache; ours gives the clean images besides. "To float32" goes on to adversarial images in
[0, 1] on the CPU: theirs divided by 255, ours unpacked and perturbed.

So briefly trained a net has smooth signs, which a store compresses further than a PNG file does: random signs are the
hardest of the three for ours.

What it does not show: a GPU; files that are not in the cache; the signs of a well trained model; or the errors of
models that were trained either way, which `png_training` does.
"""

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.ratios import Claim, Step, claim, ratios, seconds
from benchmarks.rows import SIGNS, LabelledSigns, cifar10_rows, imagenet_rows, stored
from gradshard.pipeline.attacks.pgd import pgd
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Planes
from gradshard.storage.formats.dataset import Images
from gradshard.storage.streaming.reader import InMemoryReader, Reader, ReadingPlan, WindowedReader, plan_reading
from gradshard.storage.streaming.windows import Request

BATCH, WORKERS, COPIES = 64, 2, 2
SMALLER, FASTER = 5.0, 10.0
_CIFAR_EPSILON, _IMAGENET_EPSILON = 8 / 256, 4 / 256
_STEPS = 10


def measure(*, quick: bool = False) -> list[Claim]:
    """Compare bytes and rows a second at both sizes."""
    repeats = 1 if quick else 5
    small, large = cifar10_rows(64 if quick else 2_000), imagenet_rows(32 if quick else 256, size=224)
    net = trained(small, steps=2 if quick else 100)
    sizes = (
        ("32 x 32", small, _CIFAR_EPSILON, 32 if quick else 512),
        ("224 x 224", large, _IMAGENET_EPSILON, 4 if quick else 32),
    )
    claims = []
    for name, rows, epsilon, kept in sizes:
        claims += [
            claim(f"{name}, {kind}: bytes of PNG files over those of a store", [ratio], target=SMALLER, at="least")
            for kind, ratio in _bytes(_first(rows, kept), net, epsilon).items()
        ]
        claims += _rates(name, rows, epsilon, target=FASTER if rows is large else None, repeats=repeats)
    return claims


def adversarial(rows: LabelledSigns, epsilon: float) -> Images:
    """Return the rows' adversarial images as 8 bits keep them, uint8 (n, C, H, W)."""
    parts = []
    for start in range(0, len(rows), BATCH):
        images, planes = (torch.from_numpy(part[start : start + BATCH]) for part in (rows.images, rows.planes))
        parts.append(_eight_bits(perturb(to_unit_range(images), unpack_signs(planes, images.shape), epsilon)))
    return np.concatenate(parts)


def write_pngs(images: Images, folder: Path) -> None:
    """Write adversarial images, uint8 (n, C, H, W), a file for each."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / f"{number:08d}.png").write_bytes(_png(image))


class PngImages(Dataset[tuple[Tensor, int]]):
    """Adversarial images in folders, one a copy: each row from one of them, and its label."""

    def __init__(self, folders: Sequence[Path], labels: Sequence[int]) -> None:
        self.folders, self.labels = folders, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        folder = self.folders[int(torch.randint(len(self.folders), ()))]
        with Image.open(folder / f"{row:08d}.png") as image:
            pixels = np.atleast_3d(np.array(image))
        return torch.from_numpy(pixels).permute(2, 0, 1), self.labels[row]


def trained(rows: LabelledSigns, *, steps: int) -> nn.Module:
    """Train a small net for images of any size; in eval mode."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    images, labels = torch.from_numpy(rows.images), torch.from_numpy(rows.labels)
    for chosen in torch.randint(len(rows), (steps, BATCH), generator=torch.Generator().manual_seed(0)):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(to_unit_range(images[chosen])), labels[chosen])
        torch.autograd.backward(loss)
        optimizer.step()
    return net.eval().requires_grad_(False)


def _bytes(rows: LabelledSigns, net: nn.Module, epsilon: float) -> Mapping[str, float]:
    """Return the bytes of PNG files over those of a store, by what made the perturbation."""
    kinds = {"random signs": (adversarial(rows, epsilon), rows.planes), **_crafted(rows, net, epsilon)}
    found = {}
    for kind, (images, planes) in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            stored(replace(rows, planes=planes), Path(folder))
            files = [path for path in Path(folder, f"{SIGNS}.zarr").rglob("*") if path.is_file()]
            ours = sum(path.stat().st_size for path in files)
        found[kind] = sum(len(_png(image)) for image in images) / ours
    return found


def _crafted(rows: LabelledSigns, net: nn.Module, epsilon: float) -> dict[str, tuple[Images, Planes]]:
    """Adversarial images by FGSM and PGD on the net's own predictions, and what a store keeps of each."""
    found: dict[str, list[tuple[Images, Planes]]] = {"FGSM": [], f"PGD, {_STEPS} steps": []}
    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(rows), BATCH):
        images = to_unit_range(torch.from_numpy(rows.images[start : start + BATCH]))
        labels = net(images).argmax(1)
        signs = input_gradient(net, images, labels)[0].sign()
        noise = 2 * torch.rand((1, *images.shape), generator=generator) - 1
        step = 2.5 * epsilon / _STEPS
        ends = pgd(net, images, labels, epsilon=epsilon, step=step, steps=_STEPS, noise=noise)
        moved = (ends - images) / epsilon
        for kind, examples, kept in (
            ("FGSM", perturb(images, signs, epsilon), signs),
            (f"PGD, {_STEPS} steps", ends, moved.sign() * (moved.abs() >= 0.5)),
        ):
            found[kind].append((_eight_bits(examples), bitplanes.pack(kept.flatten(1).to(torch.int8).numpy())))
    return {
        kind: (np.concatenate([images for images, _ in parts]), np.concatenate([planes for _, planes in parts]))
        for kind, parts in found.items()
    }


def _rates(name: str, rows: LabelledSigns, epsilon: float, *, target: float | None, repeats: int) -> list[Claim]:
    """Compare rows a second of ours over theirs: from windows, from memory, and as far as float32 images."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        split, store = stored(rows, folder)
        folders = [folder / "png" / f"copy-{copy}" for copy in range(COPIES)]
        for each in folders:
            write_pngs(adversarial(rows, epsilon), each)
        loader = DataLoader(
            PngImages(folders, rows.labels.tolist()),
            batch_size=BATCH,
            shuffle=True,
            num_workers=WORKERS,
            persistent_workers=True,
            multiprocessing_context="spawn",
        )
        stores = {SIGNS: store}
        plan = plan_reading(split, stores, memory=int(2 / 3 * len(rows) * rows.row_bytes))
        whole = ReadingPlan(resident=True, chunk=len(rows), window=1)
        windows = partial(_ours, WindowedReader(split, stores, plan), plan, len(rows), count())
        memory = partial(_ours, InMemoryReader(split, stores), whole, len(rows), count())
        steps: dict[str, Step] = {
            "PNG": lambda: sum(len(images) for images, _ in loader),
            "windows": lambda: sum(len(images) for images, _ in windows()),
            "memory": lambda: sum(len(images) for images, _ in memory()),
            "PNG to float32": lambda: [to_unit_range(images) for images, _ in loader],
            "memory to float32": lambda: [_perturbed(*batch, epsilon) for batch in memory()],
        }
        times = seconds(steps, repeats=repeats)
    at = f"{name}: rows a second"
    return [
        claim(f"{at} of ours from windows over PNG files", ratios(times, "PNG", "windows"), target=target, at="least"),
        claim(f"{at} of ours from memory over PNG files", ratios(times, "PNG", "memory"), target=target, at="least"),
        claim(
            f"{at} of ours from memory over PNG files, to float32", ratios(times, "PNG to float32", "memory to float32")
        ),
    ]


def _ours(reader: Reader, plan: ReadingPlan, rows: int, epochs: Iterator[int]) -> Iterator[tuple[Images, Planes]]:
    order = plan.order(rows, seed=0, epoch=next(epochs))
    for batch in reader.read(Request(chosen, SIGNS) for chosen in order.batches(BATCH)):
        assert batch.planes is not None
        yield batch.images, batch.planes


def _perturbed(images: Images, planes: Planes, epsilon: float) -> Tensor:
    clean = to_unit_range(torch.from_numpy(images))
    return clean.add_(unpack_signs(torch.from_numpy(planes), clean.shape, scale=epsilon)).clamp_(0, 1)


def _first(rows: LabelledSigns, n: int) -> LabelledSigns:
    return replace(rows, images=rows.images[:n], labels=rows.labels[:n], planes=rows.planes[:n])


def _eight_bits(examples: Tensor) -> Images:
    found: Images = (examples * 255).round().to(torch.uint8).numpy()
    return found


def _png(image: Images) -> bytes:
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    for measured in measure():
        print(measured.line())
