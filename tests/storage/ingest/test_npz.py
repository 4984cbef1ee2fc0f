"""NumPy archives as people bring them: labels and images in every form, taken as meant or refused in a sentence."""

import numpy as np
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.ingest import sources

SHAPE = (12, 13)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "d.npz"


def save(file, *, images=None, labels=None, test_images=None, test_labels=None):
    """Save 20 training and 6 test images; what is given replaces the training rows, and the test rows if given."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (20, *SHAPE), dtype=np.uint8) if images is None else images
    y = np.arange(20) % 4 if labels is None else labels
    x_test = x[:6] if test_images is None else test_images
    y_test = (np.asarray(y)[:6] if np.ndim(y) else y) if test_labels is None else test_labels
    np.savez(file, x_train=x, y_train=y, x_test=x_test, y_test=y_test)


def refused(file, sentence, **options):
    with pytest.raises(GradshardError, match=sentence) as error:
        sources.npz(file, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.bool_])
def test_one_hot_labels_are_taken_as_such_and_it_is_told(file, dtype):
    save(file, labels=np.eye(10, dtype=dtype)[np.arange(20) % 4])
    raw = sources.npz(file)
    assert raw.splits["train"][1].tolist() == [row % 4 for row in range(20)]
    assert raw.classes == 10
    assert [note for note in raw.notes if "y_train is one-hot" in note]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.tile([[1, 0, 0, 1]], (20, 1)), r"y_train is of shape \(20, 4\), and row 0, \(1, 0, 0, 1\), is not one-hot"),
        (np.zeros((20, 4), dtype=np.int64), r"row 0, \(0, 0, 0, 0\), is not one-hot"),
        (np.full((20, 2), 7), r"row 0, \(7, 7\), is not one-hot"),
        (np.full((20, 2), 0.5), r"row 0, \(0.5, 0.5\), is not one-hot"),
        (np.ones((20, 2, 3), dtype=np.int64), r"y_train is int64 of shape \(20, 2, 3\)"),
        (np.zeros((20, 0), dtype=np.int64), r"y_train is of shape \(20, 0\), which holds no labels"),
        (np.int64(3), "y_train is the single value 3: it must hold one label for each image"),
        (np.full(20, 2**63, dtype=np.uint64), "label 9223372036854775808 of row 0 is no class number"),
        (np.full(20, 1.5), "labels must be integers, but are float64: save class numbers"),
        (np.full(20, "cat"), "labels must be integers, but are <U3"),
        (np.arange(20).astype("timedelta64[s]"), r"labels must be integers, but are timedelta64\[s\]"),
        (np.eye(20, dtype=int).astype("timedelta64[s]"), r"y_train is timedelta64\[s\] of shape \(20, 20\)"),
    ],
)
def test_labels_that_number_no_class_for_each_image_are_refused(file, labels, sentence):
    save(file, labels=labels)
    refused(file, sentence)


def test_one_hot_labels_of_unlike_width_are_refused(file):
    save(file, labels=np.eye(4, dtype=int)[np.arange(20) % 4], test_labels=np.eye(5, dtype=int)[np.arange(6) % 4])
    refused(file, "y_train is one-hot for 4 classes, but y_test for 5")


@pytest.mark.parametrize("far", [255, 2_000_000_000])
def test_one_far_label_makes_no_classes_without_images(file, far):
    labels = np.arange(20) % 4
    labels[7] = far
    save(file, labels=labels)
    refused(file, f"label {far} of row 7 in train would make {far + 1} classes, of which {far - 4} have no image")
    assert sources.npz(file, classes=far + 1).classes == far + 1


def test_labels_that_start_at_1_are_told(file):
    save(file, labels=1 + np.arange(20) % 10)
    raw = sources.npz(file)
    assert raw.classes == 11
    assert raw.notes == (
        f"{file}: class 0 has no examples in train, of 11 classes from 0 on; if your labels start at 1, subtract 1",
    )


def test_gaps_between_labels_are_told(file):
    save(file, labels=np.array([0, 1, 2, 5, 6, 8] * 3 + [0, 1]), test_labels=np.array([0, 1, 2, 5, 6, 7]))
    assert sources.npz(file).notes == (f"{file}: classes 3, 4, 7 have no examples in train, of 9 classes from 0 on",)
    assert sources.npz(file, classes=1000).notes[0].startswith(f"{file}: classes 3, 4, 7 and 991 more have no examples")


def test_labels_without_gaps_say_nothing(file):
    save(file)
    assert sources.npz(file).notes == ()


def test_a_dataset_of_one_class_is_refused(file):
    save(file, labels=np.full(20, 3))
    refused(file, "every label is 3, but classification needs two classes")


@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 12, 13), (4, 12, 13)), ((2, 12, 13), (2, 12, 13)), ((12, 13, 4), (4, 12, 13))]
)
def test_two_and_four_channels_are_found_first_and_last(file, shape, expected):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    save(file, images=images)
    read = sources.npz(file).splits["train"][0]
    assert read.shape == (20, *expected)
    assert np.array_equal(read[:], images if shape == expected else np.moveaxis(images, 3, 1))


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((3, 12, 3), "may have their channels first or last"),
        ((4, 12, 1), "may have their channels first or last"),
        ((13, 12, 9), "do not all have 1 to 4 channels"),
    ],
)
def test_an_arrangement_that_shapes_leave_open_is_to_be_told(file, shape, problem):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    save(file, images=images)
    refused(file, f"x_train of shape .* and x_test of shape .* {problem}.*: set dataset.layout to chw")
    assert np.array_equal(sources.npz(file, layout="chw").splits["train"][0][:], images)
    assert np.array_equal(sources.npz(file, layout="hwc").splits["test"][0][:], np.moveaxis(images[:6], 3, 1))


def test_splits_whose_channels_are_on_different_axes_are_refused(file):
    save(file, images=np.zeros((20, 3, 12, 13), np.uint8), test_images=np.zeros((6, 12, 13, 3), np.uint8))
    refused(file, r"x_train of shape \(20, 3, 12, 13\) and x_test of shape \(6, 12, 13, 3\) do not all have 1 to 4")


def test_splits_of_unlike_dimensions_are_refused(file):
    save(file, test_images=np.zeros((6, *SHAPE, 1), np.uint8))
    refused(file, r"x_train of shape \(20, 12, 13\) and x_test of shape \(6, 12, 13, 1\)")


@pytest.mark.parametrize("shape", [(0, 13), (12, 0), (12, 13, 0)])
def test_images_without_pixels_are_refused(file, shape):
    save(file, images=np.zeros((20, *shape), np.uint8))
    refused(file, "images without pixels make no dataset")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("dtype", "scale"), [("f2", 255), ("f4", 255), (">f4", 255), ("f8", 255), ("f4", 1), ("i8", 1), ("u2", 1)]
)
def test_a_scale_makes_other_numbers_the_bytes_they_were(file, dtype, scale, order):
    whole = np.random.default_rng(0).integers(0, 256, (300, *SHAPE, 3), dtype=np.uint8)
    whole.flat[:256] = np.arange(256)
    images = np.asarray(whole / scale, dtype=dtype, order=order)
    save(file, images=images, labels=np.arange(300) % 4)
    refused(file, "images must be uint8, but are .*: save them as uint8, or set dataset.scale to what makes them 0 to")
    assert np.array_equal(sources.npz(file, scale=float(scale)).splits["train"][0][:], np.moveaxis(whole, 3, 1))


@pytest.mark.parametrize(("value", "said"), [(0.5, "127.5"), (-1 / 255, "-1"), (256 / 255, "256"), (np.nan, "nan")])
def test_numbers_that_no_scale_was_said_of_truly_are_refused_by_row(file, value, said):
    images = np.zeros((20, *SHAPE))
    images[11, 3, 4] = value
    save(file, images=images)
    read = sources.npz(file, scale=255.0).splits["train"][0]
    assert not read[:8].any()
    with pytest.raises(GradshardError, match=f"of row 11, times dataset.scale 255, is {said}, no whole number"):
        read[8:16]


def test_complex_numbers_are_no_pixels(file):
    save(file, images=np.zeros((20, *SHAPE), np.complex64))
    refused(file, "have no stated meaning as pixels")
    refused(file, "have no stated meaning as pixels", scale=1.0)


def test_a_single_array_is_no_archive(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    refused(tmp_path / "x.npy", "is not a NumPy archive of x_train, y_train, x_test and y_test")


@pytest.mark.parametrize("key", ["x_train", "y_train"])
def test_arrays_of_python_objects_are_refused_by_name(file, key):
    save(file)
    arrays = dict(np.load(file))
    objects = np.empty(len(arrays[key]), dtype=object)
    objects[:] = list(arrays[key])
    np.savez(file, **arrays | {key: objects})
    refused(file, f"{key} holds Python objects, to read which their code would have to run: save it as an array of")
