import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import label_dtype, open_dataset, rows_digest
from gradshard.storage.formats.dataset_writer import write_dataset

SHAPES = [(300, 3, 5, 4), (20, 3, 301, 299), (200, 1, 362, 363)]


def write(path, images, labels, classes=10):
    splits = {"train": (images, labels), "test": (images[:2], labels[:2])}
    return sum(write_dataset(path, name="d", classes=classes, splits=splits))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (300, 3, 5, 4), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 10, 300)


def test_what_was_written_is_read_back_with_its_digest(tmp_path, images, labels):
    assert write(tmp_path / "d.zarr", images, labels) == 302
    data = open_dataset(tmp_path / "d.zarr")
    read_images, read_labels = data.train.load()
    assert np.array_equal(read_images, images)
    assert np.array_equal(read_labels, labels)
    assert (data.sample_shape, data.classes, len(data.test)) == ((3, 5, 4), 10, 2)
    assert data.train.digest == rows_digest(images, labels, classes=10)


def test_a_dataset_opens_in_plain_zarr(tmp_path, images, labels):
    write(tmp_path / "d.zarr", images, labels)
    group = zarr.open_group(tmp_path / "d.zarr", mode="r")
    assert np.array_equal(group["train/images"][:], images)
    assert np.array_equal(group["train/labels"][:], labels)


@pytest.mark.parametrize("shape", SHAPES, ids=["small rows", "large rows", "several large rows a chunk"])
@pytest.mark.parametrize("vectored", [True, False])
def test_single_rows_are_read_in_any_order_and_more_than_once(tmp_path, shape, vectored, monkeypatch):
    if not vectored:
        monkeypatch.delattr("os.readv")
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write(tmp_path / "d.zarr", images, np.zeros(len(images), dtype=np.int64))
    train = open_dataset(tmp_path / "d.zarr").train
    for seed in range(5):
        generator = np.random.default_rng(seed)
        for rows in (generator.integers(0, len(images), 30), generator.permutation(len(images))[:30]):
            assert np.array_equal(train.take_images(rows), images[rows])
    assert np.array_equal(train.read_images(7, 19), images[7:19])
    assert train.take_images(rows[:0]).shape == (0, *shape[1:])


@pytest.mark.parametrize("rows", [[-1, 3], [299, 300], [1 << 40]])
def test_rows_that_there_are_not_are_refused(tmp_path, images, labels, rows):
    write(tmp_path / "d.zarr", images, labels)
    train = open_dataset(tmp_path / "d.zarr").train
    first, last = min(rows), max(rows) + 1
    for read in (
        lambda: train.take_images(np.array(rows)),
        lambda: train.read_images(first, last),
        lambda: train.read_labels(first, last),
    ):
        with pytest.raises(GradshardError, match=f"has 300 rows and not those from {first} to before {last}"):
            read()


def test_a_mask_is_not_taken_for_the_numbers_of_rows(tmp_path, images, labels):
    write(tmp_path / "d.zarr", images, labels)
    with pytest.raises(GradshardError, match=r"rows are bool, .* of a mask np.flatnonzero\(mask\)"):
        open_dataset(tmp_path / "d.zarr").train.take_images(labels == 3)


def test_images_that_were_compressed_by_an_earlier_version_read_as_ever(tmp_path, images, labels):
    write(tmp_path / "d.zarr", images, labels)
    group = zarr.open_group(tmp_path / "d.zarr/train", mode="r+")
    chunks, shards = group["images"].chunks, group["images"].shards
    del group["images"]
    codecs = [ZstdCodec(level=1), Crc32cCodec()]
    group.create_array("images", data=images, chunks=chunks, shards=shards, compressors=codecs)
    assert np.array_equal(open_dataset(tmp_path / "d.zarr").train.load()[0], images)


def test_images_in_another_form_are_refused(tmp_path, images, labels):
    write(tmp_path / "d.zarr", images, labels)
    group = zarr.open_group(tmp_path / "d.zarr/train", mode="r+")
    del group["images"]
    group.create_array("images", data=images, chunks=(8, *images.shape[1:]))
    with pytest.raises(GradshardError, match=r"is not a whole dataset .*prepare it again"):
        open_dataset(tmp_path / "d.zarr")


def test_what_prepare_did_not_make_is_told_to_be_none(tmp_path, images):
    np.savez(tmp_path / "images.npz", x_train=images)
    (tmp_path / "folder").mkdir()
    zarr.open_group(tmp_path / "other.zarr", mode="w").attrs["format"] = "other"
    for name in ("images.npz", "folder", "other.zarr"):
        with pytest.raises(
            GradshardError, match=rf"{name} is no dataset that `gradshard prepare` made: name the data/"
        ):
            open_dataset(tmp_path / name)


@pytest.mark.parametrize("shape", SHAPES, ids=["small rows", "large rows", "several large rows a chunk"])
@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_shard_of_images_is_an_error_that_names_its_rows(tmp_path, shape, damage):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write(tmp_path / "d.zarr", images, np.zeros(len(images), dtype=np.int64))
    train = open_dataset(tmp_path / "d.zarr").train
    shard, chunk = train.layout.shard, train.layout.chunk
    file = tmp_path / "d.zarr/train/images/c/1/0/0/0"
    content = bytearray(file.read_bytes())
    content[(chunk * images[0].nbytes) // 2] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content if damage == "changed" else content[:-1])
    said = {
        "changed": f"shard 1, rows {shard} to {shard + chunk - 1}: a chunk: its checksum is wrong",
        "cut": f"shard 1, rows {shard} to {min(2 * shard, len(images)) - 1}: the shard's index",
        "missing": "c/1/0/0/0 is missing",
    }
    with pytest.raises(GradshardError, match=rf"{said[damage]}.*run `gradshard prepare` again"):
        train.read_images(0, len(images))
    assert np.array_equal(train.read_images(0, shard), images[:shard])


def test_equal_input_gives_equal_bytes(tmp_path, images, labels):
    for name in ("one", "two"):
        write(tmp_path / name, images, labels)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) > 10
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


@pytest.mark.parametrize("change", ["order", "pixel", "label"])
def test_the_digest_covers_content_and_order(images, labels, change):
    changed_images, changed_labels = images.copy(), labels.copy()
    if change == "order":
        order = np.r_[1, 0, 2:300]
        changed_images, changed_labels = images[order], labels[order]
    elif change == "pixel":
        changed_images[7, 0, 0, 0] ^= 1
    else:
        changed_labels[7] = (labels[7] + 1) % 10
    assert rows_digest(changed_images, changed_labels, classes=10) != rows_digest(images, labels, classes=10)


def test_rows_shuffled_after_preparation_are_refused(tmp_path, images, labels):
    write(tmp_path / "d.zarr", images, labels)
    group = zarr.open_group(tmp_path / "d.zarr", mode="r+")
    group["train/images"][:] = images[::-1]
    group["train/labels"][:] = labels[::-1]
    with pytest.raises(GradshardError, match="changed or reordered after preparation"):
        open_dataset(tmp_path / "d.zarr").train.load()


@pytest.mark.parametrize(
    ("images_shape", "dtype", "labels", "sentence"),
    [
        ((4, 1, 2, 2), "float32", [0, 1, 2, 3], "images must be uint8 of shape"),
        ((4, 2, 2), "uint8", [0, 1, 2, 3], "images must be uint8 of shape"),
        ((4, 1, 2, 2), "uint8", [0, 1, 2], "4 images but 3 labels"),
        ((4, 1, 2, 2), "uint8", [0, 1, 10, 3], "label 10 of row 2 is out of range for 10 classes"),
        ((4, 1, 2, 2), "uint8", [0, -1, 0, 3], "label -1 of row 1 is out of range"),
        ((0, 1, 2, 2), "uint8", [], "no images"),
    ],
)
def test_impossible_rows_are_refused(tmp_path, images_shape, dtype, labels, sentence):
    with pytest.raises(GradshardError, match=sentence):
        write(tmp_path / "d.zarr", np.zeros(images_shape, dtype), np.array(labels, dtype=np.int64))


def test_a_missing_dataset_is_told_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(GradshardError, match="run `gradshard prepare`"):
        open_dataset(tmp_path / "nothing.zarr")


@pytest.mark.parametrize(("classes", "dtype"), [(10, "u1"), (255, "u1"), (256, "u2"), (1000, "u2"), (70_000, "u4")])
def test_the_label_dtype_leaves_room_for_a_value_that_is_no_label(classes, dtype):
    assert label_dtype(classes) == np.dtype(dtype)
    assert np.iinfo(label_dtype(classes)).max >= classes
