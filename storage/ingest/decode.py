"""One image file as one row of a dataset: decoded, made RGB, resized and cropped by a stated rule.

The rule is that of torchvision and timm at evaluation: the shorter side is resized to floor(size / crop), the longer
one in proportion (rounded down), then the central ``size`` x ``size`` pixels are taken. Resizing by Pillow always
filters (antialias). An image that has ``size`` x ``size`` pixels already passes unchanged.
"""

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from gradshard.storage.ingest import jpeg, png
from gradshard.storage.ingest.walking import is_dead_link

CHANNELS = 3
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Greyscale of 16 bits: 65535 is white.
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
# Checks of the bytes for damage that a decoder tolerates.
_DAMAGE: Mapping[str, Callable[[bytes], str | None]] = {"JPEG": jpeg.damage, "MPO": jpeg.damage, "PNG": png.damage}
# An image with more pixels once resized is refused: 1 x 100,000 pixels would become gigabytes before the crop.
_MOST_PIXELS = 1 << 26


class BrokenImageError(Exception):
    """A file that gives no image; the message says why."""


@dataclass(frozen=True)
class Transform:
    """Conversion of an image to ``size`` x ``size`` pixels.

    ``crop`` is the share of the shorter side that is kept; ``interpolation`` is nearest, bilinear, bicubic or lanczos.
    """

    size: int
    crop: float
    interpolation: str

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a converted image."""
        return CHANNELS, self.size, self.size


def read_image(path: Path, transform: Transform) -> npt.NDArray[np.uint8]:
    """Decode an image file to uint8 (3, size, size).

    Raises:
        BrokenImageError: the bytes are not a whole image that Pillow reads, its kind has no stated meaning as RGB, or
            the file is a dead link.
        OSError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        if is_dead_link(path):
            raise BrokenImageError(f"it is a link to {path.readlink()}, which is not there") from error
        raise
    try:
        with Image.open(io.BytesIO(content)) as opened:
            row = transformed(to_rgb(_upright(opened, content)), transform)
    except (BrokenImageError, MemoryError):
        raise
    # A decoder that meets nonsense raises anything: ValueError, SyntaxError, struct.error, IndexError ...
    except Exception as error:
        raise BrokenImageError(_reason(error)) from error
    find_damage = _DAMAGE.get(opened.format or "")
    if find_damage is not None and (damage := find_damage(content)) is not None:
        raise BrokenImageError(damage)
    return row


def _upright(opened: Image.Image, content: bytes) -> Image.Image:
    """Decode an image and turn it as its EXIF orientation says."""
    if opened.format == "PNG":
        png.mend_colour_key(opened, content)
    # Only Netpbm's greyscale format gives 32-bit pixels whose maximum is stated: 65535.
    deep = opened.format == "PPM" and opened.mode == "I"
    return ImageOps.exif_transpose(opened.convert("I;16") if deep else opened)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any kind as RGB.

    Greyscale fills the three channels, 16 bits are scaled to 8, transparent pixels become white, CMYK is converted
    by Pillow's formula; colour profiles are not applied.

    Raises:
        BrokenImageError: the pixels are 32-bit numbers, whose range is not stated.
    """
    see_through = "transparency" in image.info
    if image.mode == "RGB" and not see_through:
        return image
    if image.mode in _DEEP_GREY:
        deep = np.asarray(image)
        grey = (deep.astype(np.float64) / 257).round().astype(np.uint8)
        if see_through:
            grey[deep == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in _WITH_ALPHA or (image.mode in _PLAIN and see_through):
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    if image.mode in _PLAIN:
        return image.convert("RGB")
    raise BrokenImageError(f"its pixels are of Pillow's mode {image.mode}, which has no stated range")


def transformed(image: Image.Image, transform: Transform) -> npt.NDArray[np.uint8]:
    """Return an RGB image resized and cropped, uint8 (3, size, size).

    Raises:
        BrokenImageError: the image is so long and narrow that resizing it would take too much memory.
    """
    size = transform.size
    if image.size != (size, size):
        width, height = _resized(image.size, math.floor(size / transform.crop))
        if width * height > _MOST_PIXELS:
            raise BrokenImageError(f"it is too long and narrow ({image.width}x{image.height} pixels) to be resized")
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = image.resize((width, height), _FILTERS[transform.interpolation])
        image = resized.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def _resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _reason(error: Exception) -> str:
    """Say why an image is broken, in the same words each time."""
    if isinstance(error, UnidentifiedImageError):
        return "no image format that Pillow reads"
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r" at 0x[0-9a-f]+", "", text)[:200]
