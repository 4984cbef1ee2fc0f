import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms
from timm.data import create_transform
from torchvision import transforms

from gradshard.pipeline.types import Interpolation
from gradshard.storage.ingest.decode import BrokenImageError, Transform, read_image
from tests.helpers.imagefolders import coloured

RNG = np.random.default_rng(0)
BICUBIC = Transform(size=24, crop=0.875, interpolation="bicubic")


def noise(width, height, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def saved(tmp_path, image, kind="png", **options):
    path = tmp_path / f"image.{kind}"
    image.save(path, **options)
    return path


def as_is(size):
    return Transform(size=size, crop=0.875, interpolation="bicubic")


def square(tmp_path, image, kind="png", **options):
    """What is read of a square image whose size is the wanted one."""
    return read_image(saved(tmp_path, image, kind, **options), as_is(image.width))


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (41, 47), (24, 90), (30, 27), (25, 24), (300, 200)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [1.0, 0.875, 0.6])
def test_images_are_resized_and_cropped_as_by_timm(tmp_path, size, interpolation, crop):
    path = saved(tmp_path, Image.fromarray(noise(*size)))
    theirs = create_transform((3, 24, 24), crop_pct=crop, interpolation=interpolation)
    resize_and_crop = transforms.Compose(theirs.transforms[:2])
    expected = np.asarray(resize_and_crop(Image.open(path))).transpose(2, 0, 1)
    assert np.array_equal(read_image(path, Transform(24, crop, interpolation)), expected)


@pytest.mark.slow
def test_real_photographs_are_resized_and_cropped_as_by_timm(imagenet_sample):
    resize_and_crop = transforms.Compose(create_transform((3, 299, 299), interpolation="bicubic").transforms[:2])
    files = sorted(imagenet_sample.glob("*/*/*"))
    assert len(files) == 120
    for file in files:
        expected = np.asarray(resize_and_crop(Image.open(file).convert("RGB"))).transpose(2, 0, 1)
        assert np.array_equal(read_image(file, Transform(299, 0.875, "bicubic")), expected), file


def test_every_interpolation_of_the_parameters_is_known(tmp_path):
    path = saved(tmp_path, Image.fromarray(noise(50, 40)))
    for name in Interpolation.__args__:
        assert read_image(path, Transform(24, 0.875, name)).shape == (3, 24, 24)


def test_an_image_of_the_wanted_size_passes_unchanged_whatever_the_crop(tmp_path, digits):
    image = coloured(digits["train"][0][0], 32)
    assert np.array_equal(square(tmp_path, image), np.asarray(image).transpose(2, 0, 1))


def test_downscaling_filters_and_does_not_alias(tmp_path):
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    found = read_image(saved(tmp_path, Image.fromarray(stripes)), Transform(32, 1.0, "bicubic"))
    # At the borders the filter sees one stripe more or less; without it, every pixel is 0 or 255.
    assert abs(found.astype(int) - 127).max() <= 8


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm", "webp"])
def test_formats_without_loss_give_their_pixels(tmp_path, kind):
    pixels = noise(24, 24)
    options = {"lossless": True} if kind == "webp" else {}
    assert np.array_equal(square(tmp_path, Image.fromarray(pixels), kind, **options), pixels.transpose(2, 0, 1))


def test_greyscale_fills_three_channels(tmp_path):
    pixels = noise(24, 24, 1)
    assert np.array_equal(square(tmp_path, Image.fromarray(pixels)), np.stack([pixels] * 3))


def test_greyscale_of_16_bits_is_scaled_and_not_cut_off(tmp_path):
    pixels = np.array([[0, 257, 32896, 65535]] * 4, dtype=np.uint16)
    assert square(tmp_path, Image.fromarray(pixels))[:, 0].tolist() == [[0, 1, 128, 255]] * 3


def test_bilevel_and_palette_images_become_rgb(tmp_path):
    pixels = noise(24, 24)
    bilevel = Image.fromarray(pixels).convert("1")
    assert set(np.unique(square(tmp_path, bilevel))) == {0, 255}
    palette = Image.fromarray(pixels).quantize(16)
    assert np.array_equal(square(tmp_path, palette), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))


def test_what_is_transparent_shows_white(tmp_path):
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[..., 0] = 200
    pixels[..., 3] = [[255, 0], [51, 0]]
    found = square(tmp_path, Image.fromarray(pixels))
    assert found[:, 0, 0].tolist() == [200, 0, 0]
    assert found[:, 0, 1].tolist() == [255, 255, 255]
    assert found[:, 1, 0].tolist() == [244, 204, 204]
    grey = Image.fromarray(np.array([[[9, 255], [9, 0]], [[9, 0], [9, 255]]], dtype=np.uint8), "LA")
    assert square(tmp_path, grey)[1].tolist() == [[9, 255], [255, 9]]


def test_a_colour_that_stands_for_transparent_shows_white(tmp_path):
    rgb = np.zeros((2, 2, 3), dtype=np.uint8)
    rgb[0, 0] = (1, 2, 3)
    path = saved(tmp_path, Image.fromarray(rgb), transparency=(1, 2, 3))
    assert read_image(path, as_is(2))[:, 0, 0].tolist() == [255, 255, 255]
    assert read_image(path, as_is(2))[:, 1, 1].tolist() == [0, 0, 0]


def test_cmyk_is_converted(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = square(tmp_path, red, "jpg", quality=100)
    assert found[:, 4, 4].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_stands_as_its_exif_orientation_says(tmp_path, orientation):
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8, :8], pixels[:8, 8:] = (250, 0, 0), (0, 250, 0)
    upright = Image.fromarray(pixels)
    turned = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if turned is None else upright.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(square(tmp_path, stored, exif=exif), pixels.transpose(2, 0, 1))


def test_a_colour_profile_is_not_applied(tmp_path):
    pixels = noise(24, 24)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(square(tmp_path, Image.fromarray(pixels), icc_profile=profile), pixels.transpose(2, 0, 1))


def content(kind="JPEG"):
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"", "no image format that Pillow reads"),
        (b"not an image at all", "no image format that Pillow reads"),
        (content()[:-600], "truncated"),
        (content("PNG")[:-600], "truncated"),
        (content("PNG")[:70] + bytes(8) + content("PNG")[78:], "broken"),
        (content("BMP")[:-300], "truncated"),
        (content("WEBP")[:200], ""),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 200_000, 200_000, 8, 2, 0, 0, 0, 0), ""),
    ],
)
def test_a_broken_image_says_why_in_the_same_words_each_time(tmp_path, broken, reason):
    path = tmp_path / "broken.jpg"
    path.write_bytes(broken)
    said = set()
    for _ in range(3):
        with pytest.raises(BrokenImageError) as error:
            read_image(path, BICUBIC)
        said.add(str(error.value))
    assert len(said) == 1
    assert reason in said.pop()


def test_32_bit_pixels_have_no_stated_range(tmp_path):
    with pytest.raises(BrokenImageError, match="mode F, which has no stated range"):
        read_image(saved(tmp_path, Image.fromarray(np.ones((8, 8), dtype=np.float32)), "tiff"), BICUBIC)


def test_an_endless_strip_is_refused_and_takes_no_memory(tmp_path):
    with pytest.raises(BrokenImageError, match=r"too long and narrow \(1x60000 pixels\)"):
        read_image(saved(tmp_path, Image.new("RGB", (1, 60_000))), Transform(299, 0.875, "bicubic"))


@pytest.mark.parametrize("target", ["missing.jpg", "image.jpg"])
def test_a_link_that_leads_nowhere_is_a_broken_image(tmp_path, target):
    (tmp_path / "image.jpg").symlink_to(target)
    with pytest.raises(BrokenImageError, match=f"it is a link to {target}, which is not there"):
        read_image(tmp_path / "image.jpg", BICUBIC)


def test_a_file_that_cannot_be_read_is_not_a_broken_image(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "missing.jpg", BICUBIC)
