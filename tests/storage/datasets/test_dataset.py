import numpy as np
import pytest
import zarr

from storage.datasets.dataset import label_dtype, open_dataset, rows_digest, write_dataset
from storage.errors import GradshardError


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


def test_a_missing_or_foreign_folder_is_refused(tmp_path):
    with pytest.raises(GradshardError, match="run `gradshard prepare`"):
        open_dataset(tmp_path / "nothing.zarr")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w").attrs["format"] = "other"
    with pytest.raises(GradshardError, match="not a gradshard dataset"):
        open_dataset(tmp_path / "foreign.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(GradshardError, match="not a whole dataset"):
        open_dataset(tmp_path / "empty.zarr")


@pytest.mark.parametrize(("classes", "dtype"), [(10, "u1"), (255, "u1"), (256, "u2"), (1000, "u2"), (70_000, "u4")])
def test_the_label_dtype_leaves_room_for_a_value_that_is_no_label(classes, dtype):
    assert label_dtype(classes) == np.dtype(dtype)
    assert np.iinfo(label_dtype(classes)).max >= classes
