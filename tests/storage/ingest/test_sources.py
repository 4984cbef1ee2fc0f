import gzip

import numpy as np
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import rows_digest
from gradshard.storage.ingest import sources
from gradshard.storage.ingest.idx import idx_images
from tests.helpers.idx_files import idx_bytes, write_idx_folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_any_folder_of_four_idx_files_is_read(tmp_path, zipped, dotted):
    raw = sources.idx(write_idx_folder(tmp_path, zipped=zipped, dotted=dotted))
    assert raw.classes == 4
    assert {name: part[0].shape for name, part in raw.splits.items()} == {
        "train": (40, 1, 12, 7),
        "test": (10, 1, 12, 7),
    }


def test_a_missing_idx_file_is_named(tmp_path):
    (write_idx_folder(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(GradshardError, match="no t10k-labels-idx1-ubyte"):
        sources.idx(tmp_path)


def test_counts_that_differ_are_refused(tmp_path):
    write_idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(39)))
    with pytest.raises(GradshardError, match=r"40 images but .* 39 labels"):
        sources.idx(tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: content[:-3], "is truncated: its header promises 856 bytes, but it has 853"),
        (lambda content: content + b"x", "is too long"),
        (lambda content: b"\x89PNG" + content[4:], "is not an IDX file"),
        (lambda content: b"", "is not an IDX file"),
        (lambda content: gzip.compress(content)[:-20], "is a damaged gzip file"),
    ],
    ids=["truncated", "too long", "foreign", "empty", "damaged gzip"],
)
def test_damaged_idx_files_are_refused(tmp_path, damage, sentence):
    path = tmp_path / "images"
    path.write_bytes(damage(idx_bytes(np.zeros((10, 12, 7)))))
    with pytest.raises(GradshardError, match=sentence):
        idx_images(path)


def test_mnist_whose_content_is_not_mnist_is_refused(tmp_path):
    with pytest.raises(
        GradshardError, match=r"train-images-idx3-ubyte is not the file it should be .* expected ba891046"
    ):
        sources.mnist(write_idx_folder(tmp_path), show=None)


def test_mnist5k_is_stratified_and_always_the_same():
    raw = sources.mnist5k()
    counts = {split: np.bincount(labels).tolist() for split, (_, labels) in raw.splits.items()}
    assert counts == {"train": [400] * 10, "test": [100] * 10}
    digests = {split: rows_digest(*rows, classes=10)[:16] for split, rows in raw.splits.items()}
    assert digests == {"train": "7fa1bd2843eab771", "test": "69bafbc5f260c8f5"}
    images, _ = raw.splits["train"]
    assert images.shape == (4000, 1, 28, 28)
    assert images.max() == 255


@pytest.mark.parametrize(
    ("shape", "expected", "at"),
    [
        ((9, 6, 5), (9, 1, 6, 5), (2, 3)),
        ((9, 6, 5, 1), (9, 1, 6, 5), (2, 3, 0)),
        ((9, 6, 5, 3), (9, 3, 6, 5), (2, 3, 0)),
        ((9, 3, 6, 5), (9, 3, 6, 5), (0, 2, 3)),
    ],
)
def test_npz_images_come_in_any_usual_layout(tmp_path, shape, expected, at):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x_train=images, y_train=np.arange(9)[:, None], x_test=images[:2], y_test=[0, 1])
    raw = sources.npz(tmp_path / "d.npz")
    assert raw.splits["train"][0].shape == expected
    assert raw.splits["train"][1].tolist() == list(range(9))
    read = raw.splits["train"][0][:]
    assert sorted(read[4].ravel()) == sorted(images[4].ravel())
    assert read[4, 0, 2, 3] == images[4][at]


def test_npz_that_is_no_such_archive_is_refused(tmp_path):
    with pytest.raises(GradshardError, match="no file"):
        sources.npz(tmp_path / "missing.npz")
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(GradshardError, match="is not a NumPy archive of x_train"):
        sources.npz(tmp_path / "other.npz")
    images = np.zeros((2, 4, 4))
    np.savez(tmp_path / "floats.npz", x_train=images, y_train=[0, 1], x_test=images, y_test=[0, 1])
    with pytest.raises(GradshardError, match="images must be uint8"):
        sources.npz(tmp_path / "floats.npz")
    np.savez(tmp_path / "labels.npz", x_train=images.astype("u1"), y_train=[0.5, 1], x_test=images, y_test=[0, 1])
    with pytest.raises(GradshardError, match="labels must be integers"):
        sources.npz(tmp_path / "labels.npz")


def test_the_parameter_wins_over_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADSHARD_DATA", str(tmp_path))
    assert sources.raw_folder("/elsewhere", "mnist").as_posix() == "/elsewhere"
    assert sources.raw_folder(None, "mnist") == tmp_path
    (tmp_path / "mnist").mkdir()
    assert sources.raw_folder(None, "mnist") == tmp_path / "mnist"
    monkeypatch.delenv("GRADSHARD_DATA")
    assert sources.raw_folder(None, "mnist") is None


def test_the_home_folder_is_understood_in_the_parameter_and_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GRADSHARD_DATA", "~/all")
    (tmp_path / "all/mnist").mkdir(parents=True)
    assert sources.raw_folder("~/data/d.npz", "npz") == tmp_path / "data/d.npz"
    assert sources.raw_folder(None, "mnist") == tmp_path / "all/mnist"
    with pytest.raises(GradshardError, match="no home folder for ~nobody-of-this-name: write it out"):
        sources.raw_folder("~nobody-of-this-name/data", "npz")


@pytest.mark.parametrize("zipped", [False, True])
def test_images_of_a_file_are_read_some_rows_at_a_time_in_any_order(tmp_path, zipped):
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 5), dtype=np.uint8)
    content = idx_bytes(images)
    (tmp_path / "images").write_bytes(gzip.compress(content) if zipped else content)
    read = idx_images(tmp_path / "images")
    for rows in (slice(0, 4), slice(4, 9), slice(2, 3), slice(0, 9)):
        assert np.array_equal(read[rows][:, 0], images[rows])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_in_fortran_order_are_the_same_images(tmp_path, save):
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3), dtype=np.uint8)
    for name, stored in (("c", images), ("fortran", np.asfortranarray(images))):
        save(tmp_path / f"{name}.npz", x_train=stored, y_train=np.arange(9), x_test=stored[:2], y_test=[0, 1])
    first, second = (sources.npz(tmp_path / f"{name}.npz").splits["train"][0][:] for name in ("c", "fortran"))
    assert np.array_equal(first, second)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    (tmp_path / "images").write_bytes(idx_bytes(np.zeros((10, 12, 7))))
    images = idx_images(tmp_path / "images")
    (tmp_path / "images").write_bytes(idx_bytes(np.zeros((10, 12, 7)))[:-3])
    assert len(images[:9]) == 9
    with pytest.raises(GradshardError, match="images ends before row 10: it was changed while it was read"):
        images[9:]


def test_an_npz_archive_whose_images_are_damaged_is_refused_when_they_are_read(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 6, 5), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x_train=images, y_train=np.arange(300), x_test=images[:2], y_test=[0, 1])
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[content.index(images[200].tobytes())] ^= 1
    (tmp_path / "d.npz").write_bytes(bytes(content))
    read = sources.npz(tmp_path / "d.npz").splits["train"][0]
    with pytest.raises(GradshardError, match=r"x_train cannot be read on \(Bad CRC-32"):
        read[:]
