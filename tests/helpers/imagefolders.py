"""Small folders of real images: digits in colours, as PNG, JPEG, WebP and BMP files."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

_FORMATS = ("png", "jpg", "webp", "bmp", "JPEG")


def coloured(digit: npt.NDArray[np.uint8], size: int) -> Image.Image:
    """Return a digit, uint8 (1, 28, 28), in a colour of its own on a dark ground, ``size`` x ``size`` pixels."""
    ink = np.random.default_rng(int(digit.sum())).uniform(0.4, 1, 3)
    grey = Image.fromarray(digit[0]).resize((size, size), Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(grey)[:, :, None] * ink + 20 * (1 - ink)).astype(np.uint8))


def write_folder(
    path: Path, digits: dict, *, train: int = 120, test: int = 40, size: int = 32, test_folder: str = "val"
) -> Path:
    """Write the first digits of each split to ``train/CLASS/NUMBER.KIND`` and ``val/...``."""
    for folder, split, count in (("train", "train", train), (test_folder, "test", test)):
        images, labels = digits[split]
        for number in range(count):
            kind = _FORMATS[number % len(_FORMATS)]
            file = path / folder / f"digit{labels[number]}" / f"{number:04d}.{kind}"
            file.parent.mkdir(parents=True, exist_ok=True)
            coloured(images[number], size).save(file)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
