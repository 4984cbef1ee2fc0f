import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter
from timm.data import create_transform
from torchvision import transforms

from gradshard.pipeline.types import Interpolation
from gradshard.storage.ingest import jpeg, png
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


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_greyscale_of_16_bits_is_scaled_and_not_cut_off(tmp_path, kind):
    pixels = np.array([[0, 257, 32896, 65535]] * 4, dtype=np.uint16)
    path = tmp_path / "image.pgm"
    path.write_bytes(b"P5\n4 4\n65535\n" + pixels.astype(">u2").tobytes())
    path = path if kind == "pgm" else saved(tmp_path, Image.fromarray(pixels), kind)
    assert read_image(path, as_is(4))[:, 0].tolist() == [[0, 1, 128, 255]] * 3


def test_a_pgm_of_10_bits_is_scaled_to_its_own_white(tmp_path):
    pixels = np.array([[0, 512], [1022, 1023]], dtype=">u2")
    (tmp_path / "image.pgm").write_bytes(b"P5\n2 2\n1023\n" + pixels.tobytes())
    assert read_image(tmp_path / "image.pgm", as_is(2))[0].tolist() == [[0, 128], [255, 255]]


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


def png_bytes(width, depth, kind, rows, *, key=b"", checksum_off=0, compressed=None, interlaced=0):
    """A PNG file, byte by byte; ``rows`` are bytes without filters."""

    def chunk(name, data, off=0):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ off)

    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows)) if compressed is None else compressed
    parts = [chunk(b"IHDR", header), chunk(b"tRNS", key) if key else b"", chunk(b"IDAT", pixels, checksum_off)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "kind", "rows", "key", "expected"),
    [
        (16, 0, [struct.pack(">2H", 300, 514)] * 2, struct.pack(">H", 300), [255, 2]),
        (16, 2, [struct.pack(">6H", 5, 1 << 8, 0, 0, 2 << 8, 0)] * 2, struct.pack(">3H", 5, 1 << 8, 0), [255, 2]),
        (4, 0, [b"\x37"] * 2, struct.pack(">H", 3), [255, 7 * 17]),
        (2, 0, [b"\x60"] * 2, struct.pack(">H", 1), [255, 2 * 85]),
        (1, 0, [b"\x40"] * 2, struct.pack(">H", 0), [255, 255]),
    ],
    ids=["grey of 16 bits", "colours of 16 bits", "4 bits", "2 bits", "1 bit"],
)
def test_a_colour_that_stands_for_transparent_shows_white_at_every_depth(tmp_path, depth, kind, rows, key, expected):
    (tmp_path / "image.png").write_bytes(png_bytes(2, depth, kind, rows, key=key))
    assert read_image(tmp_path / "image.png", as_is(2))[1, 0].tolist() == expected


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


def broken(tmp_path, content):
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(BrokenImageError) as error:
        read_image(tmp_path / "image", BICUBIC)
    return str(error.value)


def test_a_png_that_lacks_rows_or_has_a_wrong_checksum_is_broken(tmp_path):
    rows = [row.tobytes() for row in noise(24, 24, 1)]
    (tmp_path / "whole").write_bytes(png_bytes(24, 8, 0, rows))
    assert np.array_equal(read_image(tmp_path / "whole", as_is(24))[0], [list(row) for row in rows])
    half = zlib.compress(b"".join(b"\0" + row for row in rows[:12]))
    assert broken(tmp_path, png_bytes(24, 8, 0, rows, compressed=half)) == "some of its rows are missing"
    assert broken(tmp_path, png_bytes(24, 8, 0, rows, checksum_off=1)) == "the checksum of its pixels is wrong"
    whole = zlib.compress(b"".join(b"\0" + row for row in rows))
    wrong = whole[:-1] + bytes([whole[-1] ^ 1])
    assert "its pixels are damaged" in png.damage(png_bytes(24, 8, 0, rows, compressed=wrong))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 5), (9, 17), (24, 24)])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_whole_png_files_of_every_size_and_kind_are_whole(size, mode):
    buffer = io.BytesIO()
    Image.fromarray(noise(*size)).convert(mode).save(buffer, "PNG")
    assert png.damage(buffer.getvalue()) is None


def test_an_interlaced_png_is_whole_with_the_rows_of_all_passes():
    # By PNG's rule, the passes of 5 x 5 pixels have 1, 1, 1 x 2, 2 x 2 (three rows and more) pixels.
    passes = [(1, 1), (1, 1), (2, 1), (1, 2), (3, 1), (2, 3), (5, 2)]
    pixels = b"".join(b"\0" + bytes(columns) for columns, rows in passes for _ in range(rows))
    whole = png_bytes(5, 8, 0, [b""] * 5, compressed=zlib.compress(pixels), interlaced=1)
    assert np.asarray(Image.open(io.BytesIO(whole))).shape == (5, 5)
    assert png.damage(whole) is None
    assert png.damage(png_bytes(5, 8, 0, [b""] * 5, compressed=zlib.compress(pixels[:-1]), interlaced=1))


def jpeg_bytes(size, mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2))
    buffer = io.BytesIO()
    picture.convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def overwritten(content, at, by):
    start = int(len(content) * at)
    return content[:start] + by + content[start + len(by) :]


@pytest.mark.parametrize("by", [bytes(600), b"\xff\xd9", b"\xff\xd3", b"\xff\xe1\x00\x04ab", b"\xd2\x4a" * 200])
@pytest.mark.parametrize("at", [0.4, 0.6])
def test_a_jpeg_that_was_overwritten_in_the_middle_is_broken(tmp_path, by, at):
    damaged = overwritten(jpeg_bytes((300, 200), quality=90), at, by)
    assert Image.open(io.BytesIO(damaged)).convert("RGB").size == (300, 200)
    assert "pixels" in broken(tmp_path, damaged)


def test_a_jpeg_that_was_cut_and_closed_is_broken(tmp_path):
    whole = jpeg_bytes((300, 200))
    cut = whole[: len(whole) // 2].rstrip(b"\xff") + b"\xff\xd9"
    assert broken(tmp_path, cut) == "the codes of its pixels end before its last row"


def test_a_progressive_jpeg_with_an_early_end_is_broken(tmp_path):
    damaged = overwritten(jpeg_bytes((300, 200), progressive=True), 0.5, b"\xff\xd9")
    assert broken(tmp_path, damaged) == "there is an end marker in the middle of its pixels"


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 16), (17, 33), (300, 200)])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 1}, {"subsampling": 0}]
)
def test_whole_jpeg_files_of_every_size_and_kind_are_whole(size, mode, options):
    assert jpeg.damage(jpeg_bytes(size, mode, **options)) is None


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_jpeg_of_one_colour_is_whole(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (colour,) * 3).save(buffer, "JPEG")
    assert jpeg.damage(buffer.getvalue()) is None


@pytest.mark.parametrize(
    "behind",
    [
        b"\0" * 99,
        b"a film",
        b"\xff" * 3,
        b"\xff\xd9",
        b"\xff\xd9" * 2,
        b"\0" * 99 + b"\xff\xd9",
        b"\0\xff\xd9" * 3 + b"\xff\xff\xd9",
        jpeg_bytes((40, 40)),
    ],
)
def test_what_lies_behind_the_end_of_a_jpeg_is_no_damage(behind):
    assert jpeg.damage(jpeg_bytes((300, 200)) + behind) is None


def test_a_few_bytes_before_the_end_of_a_jpeg_are_no_damage():
    whole = jpeg_bytes((300, 200))
    assert jpeg.damage(whole[:-2] + bytes(3) + whole[-2:]) is None
    assert jpeg.damage(whole[:-2] + b"\xff\xff" + whole[-2:]) is None


@pytest.mark.slow
def test_real_photographs_are_whole(imagenet_sample, cifar10_images):
    files = [*imagenet_sample.glob("*/*/*"), *cifar10_images.glob("train/*/*")]
    assert len(files) > 10_000
    for file in files:
        content = file.read_bytes()
        assert (jpeg if content.startswith(b"\xff\xd8") else png).damage(content) is None, file


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
