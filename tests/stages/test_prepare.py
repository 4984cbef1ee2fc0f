"""The stage ``prepare`` on arrays: what it refuses, what it tells, and in which order it stores rows."""

import numpy as np
import pytest
import zarr

from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.ingest.shuffling import is_sorted, shuffled_order
from tests.helpers.idx_files import idx_bytes, write_idx_folder

DATASET = "data/npz.zarr"


def save(project, **arrays):
    """Replace arrays of the project's archive of digits."""
    with np.load(project.path / "digits.npz") as archive:
        np.savez(project.path / "digits.npz", **{**archive, **arrays})


def load(project, key):
    with np.load(project.path / "digits.npz") as archive:
        return archive[key]


def refused(gradshard, project, *sayings):
    code, said = gradshard(project, "prepare")
    assert code == 2, said
    assert "Traceback" not in said
    for saying in sayings:
        assert saying in said.strip().splitlines()[-1]
    assert not (project.path / "data").exists()


def change(project, **keys):
    project.edit(lambda params: params["dataset"].update(keys))


def sort_by_class(project):
    for split in ("train", "test"):
        images, labels = load(project, f"x_{split}"), load(project, f"y_{split}")
        order = np.argsort(labels, kind="stable")
        save(project, **{f"x_{split}": images[order], f"y_{split}": labels[order]})


def test_splits_of_different_shapes_are_refused_by_both_shapes(gradshard, project):
    save(project, x_test=load(project, "x_test")[..., :-1])
    refused(gradshard, project, "train are of shape (1, 28, 28)", "test are of shape (1, 28, 27)")


def test_idx_files_of_different_shapes_are_refused_by_both_shapes(gradshard, project):
    images = np.zeros((10, 12, 8))
    (write_idx_folder(project.path / "raw") / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images))
    project.edit(lambda params: params.update(dataset={"name": "idx", "path": "raw"}))
    refused(gradshard, project, "train are of shape (1, 12, 7)", "test are of shape (1, 12, 8)")


def test_idx_images_without_pixels_are_refused(gradshard, project):
    folder = write_idx_folder(project.path / "raw")
    for prefix, rows in (("train", 40), ("t10k", 10)):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((rows, 0, 7))))
    project.edit(lambda params: params.update(dataset={"name": "idx", "path": "raw"}))
    refused(gradshard, project, "have no pixels")


def test_labels_that_start_at_1_are_told_and_prepared(gradshard, project):
    save(project, y_train=load(project, "y_train") + 1, y_test=load(project, "y_test") + 1)
    code, said = gradshard(project, "prepare")
    assert code == 0
    assert (
        "note: digits.npz: class 0 has no examples in train, of 11 classes from 0 on; if your labels start at" in said
    )
    assert open_dataset(project.path / DATASET).classes == 11


def test_rows_sorted_by_class_are_stored_shuffled_and_it_is_told(gradshard, project):
    sort_by_class(project)
    code, said = gradshard(project, "prepare")
    assert code == 0
    assert "note: train is sorted by class (10 runs of one label, where chance gives 5" in said
    assert "note: test is sorted by class (10 runs" in said
    data = open_dataset(project.path / DATASET)
    for number, split in enumerate((data.train, data.test)):
        images, labels = split.load()
        order = shuffled_order(len(split), seed=0, split=number)
        assert np.array_equal(images, load(project, f"x_{split.name}")[order])
        assert np.array_equal(labels, load(project, f"y_{split.name}")[order])
        assert not is_sorted(labels)
        assert zarr.open_group(project.path / DATASET / split.name, mode="r").attrs["shuffled"] == 0
    assert not list((project.path / ".partial").glob("*/raw-*"))


def test_a_dataset_that_is_a_link_to_another_disk_is_neither_replaced_nor_left_behind(gradshard, project):
    assert gradshard(project, "prepare")[0] == 0
    (project.path / DATASET).rename(project.path / "disk")
    (project.path / DATASET).symlink_to("../disk")
    code, said = gradshard(project, "prepare")
    assert code == 2
    assert said.strip().splitlines()[-1].startswith(f"gradshard: {DATASET} is a link to ../disk, ")
    assert (project.path / DATASET).is_symlink()
    assert len(open_dataset(project.path / DATASET).train) == 600


def test_rows_that_are_not_sorted_keep_their_order(gradshard, project):
    code, said = gradshard(project, "prepare")
    assert code == 0
    assert "note:" not in said
    train = open_dataset(project.path / DATASET).train
    assert np.array_equal(train.load()[0], load(project, "x_train"))
    assert "shuffled" not in zarr.open_group(project.path / DATASET / "train", mode="r").attrs


def test_the_order_of_rows_may_be_told(gradshard, project):
    change(project, order="shuffled", seed=7)
    assert gradshard(project, "prepare")[0] == 0
    order = shuffled_order(600, seed=7, split=0)
    assert np.array_equal(open_dataset(project.path / DATASET).train.read_labels(), load(project, "y_train")[order])
    sort_by_class(project)
    change(project, order="as_given")
    assert gradshard(project, "prepare")[0] == 0
    assert np.array_equal(open_dataset(project.path / DATASET).train.read_labels(), load(project, "y_train"))


def test_layout_and_scale_reach_the_reader(gradshard, project):
    x_train, x_test = (load(project, f"x_{split}") for split in ("train", "test"))
    strips = {"x_train": x_train[:, :, :4].transpose(0, 2, 3, 1), "x_test": x_test[:, :, :4].transpose(0, 2, 3, 1)}
    save(project, **{name: (images / 255).astype(np.float32) for name, images in strips.items()})
    refused(gradshard, project, "set dataset.layout to chw (channels first) or hwc (channels last)")
    change(project, layout="hwc")
    refused(gradshard, project, "images must be uint8, but are float32: save them as uint8, or set dataset.scale")
    change(project, scale=255)
    code, said = gradshard(project, "prepare")
    assert code == 0, said
    assert np.array_equal(open_dataset(project.path / DATASET).train.load()[0], x_train[:, :, :4])


@pytest.mark.parametrize(
    ("dataset", "saying"),
    [
        ({"name": "idx", "layout": "chw"}, "dataset.layout is for dataset.name npz or huggingface, not idx: remove it"),
        (
            {"name": "mnist5k", "scale": 255},
            "dataset.scale is for dataset.name npz or huggingface, not mnist5k: remove it",
        ),
        (
            {"name": "mnist", "order": "shuffled"},
            "dataset.order is for dataset.name idx, npz, huggingface or torchvision, not mnist: remove it",
        ),
        ({"name": "npz", "layout": "nchw"}, "dataset.layout should be 'chw' or 'hwc'"),
        ({"name": "npz", "scale": 0}, "dataset.scale should be greater than 0"),
        ({"name": "npz", "order": "sorted"}, "dataset.order should be 'auto', 'as_given' or 'shuffled'"),
        ({"name": "npz", "classes": 1}, "dataset.classes should be greater than or equal to 2"),
    ],
)
def test_parameters_of_arrays_that_do_not_fit_are_refused(gradshard, project, dataset, saying):
    project.edit(lambda params: params.update(dataset=dataset))
    refused(gradshard, project, f"gradshard: params.yaml: {saying}")
