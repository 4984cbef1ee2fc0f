"""``prepare`` of a folder of images: workers, kills, broken images, and what the parameters may say."""

import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
import zarr
from PIL import Image

from gradshard.storage.formats.dataset import open_dataset
from tests.helpers.imagefolders import files_of, write_folder
from tests.helpers.projects import Project, new_project


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, digits):
    """A project with a prepared folder of 400 + 40 images. Not to be changed: copy it."""
    project = new_project(tmp_path_factory.mktemp("folder") / "project", digits)
    write_folder(project.path / "images", digits, train=400)
    project.edit(lambda p: p.update(dataset={"name": "imagefolder", "path": "images", "size": 32}))
    project.run("prepare")
    return project


@pytest.fixture
def project(prepared, tmp_path):
    """A copy of it, as before the first stage."""
    copy = prepared.copy_to(tmp_path / "project")
    shutil.rmtree(copy.path / "data")
    return copy


def change(project: Project, **dataset: object) -> None:
    project.edit(lambda params: params["dataset"].update(dataset))


def test_worker_processes_write_the_bytes_that_threads_write(prepared, project):
    output = project.run("prepare", "--workers", "2")
    assert "400 training and 40 test images of shape (3, 32, 32), 10 classes, digest " in output
    assert files_of(project.path / "data") == files_of(prepared.path / "data")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_prepare_goes_on_with_the_missing_shards(prepared, project, workers):
    rng, arguments = random.Random(workers), ["prepare", "--workers", str(workers)]
    receipts = "*/ledger-train/*.json"
    done = 0
    for _ in range(3):
        process = project.popen(*arguments)
        wanted = done + rng.randint(1, 3)
        deadline = time.monotonic() + 300
        while len(list((project.path / ".partial").glob(receipts))) < wanted:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = len(list((project.path / ".partial").glob(receipts)))
        assert not (project.path / "data").exists()
    output = project.run(*arguments)
    assert f"train: going on: {done} of 13 shards are there" in output
    assert files_of(project.path / "data") == files_of(prepared.path / "data")


def breaking(project, *names):
    for name in names:
        path = next(project.path.glob(f"images/{name}.*"))
        path.write_bytes(path.read_bytes()[:80])


def test_a_broken_image_is_named_and_nothing_is_written(project, gradshard):
    breaking(project, "train/*/0123")
    code, said = gradshard(project, "prepare")
    assert code == 2
    (sentence,) = [line for line in said.splitlines() if line.startswith("gradshard: ")]
    name = next(project.path.glob("images/train/*/0123.*"))
    assert f"{name} is broken (" in sentence
    assert sentence.endswith("): repair or remove it, or set dataset.broken to skip")
    assert "Traceback" not in said
    assert not (project.path / "data").exists()


def test_after_a_broken_image_is_repaired_only_the_shards_that_are_missing_are_made(prepared, project, gradshard):
    name = next(project.path.glob("images/val/*/0017.*"))
    whole = name.read_bytes()
    name.write_bytes(b"")
    assert gradshard(project, "prepare")[0] == 2
    name.write_bytes(whole)
    code, said = gradshard(project, "prepare")
    assert code == 0
    assert "train: going on: 13 of 13 shards are there" in said
    assert files_of(project.path / "data") == files_of(prepared.path / "data")


def test_skipped_images_are_counted_named_and_listed(project, gradshard):
    breaking(project, "train/*/0003", "train/*/0200", "val/*/0001")
    change(project, broken="skip")
    code, said = gradshard(project, "prepare")
    assert code == 0, said
    assert "train: 2 broken images are skipped: train/digit" in said
    assert "test: 1 broken images are skipped: val/digit" in said
    data = open_dataset(project.path / "data/imagefolder.zarr")
    assert (len(data.train), len(data.test)) == (398, 39)
    listed = zarr.open_group(project.path / "data/imagefolder.zarr/train", mode="r").attrs["skipped"]
    assert {entry["file"].rpartition("/")[2].partition(".")[0] for entry in listed} == {"0003", "0200"}
    assert not {entry["file"] for entry in listed} & set(data.train.read_files())


def test_what_was_made_before_an_image_was_found_broken_is_kept_when_it_is_to_be_skipped(project, gradshard):
    breaking(project, "train/*/0123")
    assert gradshard(project, "prepare")[0] == 2
    change(project, broken="skip")
    code, said = gradshard(project, "prepare")
    assert code == 0
    assert "train: going on: " in said
    clean = Project(project.path.parent / "clean")
    shutil.copytree(project.path, clean.path, ignore=shutil.ignore_patterns("data", ".partial"))
    assert gradshard(clean, "prepare")[0] == 0
    assert files_of(clean.path / "data") == files_of(project.path / "data")


def test_a_dead_link_is_told_or_skipped_as_a_broken_image(project, gradshard):
    file = next(project.path.glob("images/train/*/0003.*"))
    file.unlink()
    file.symlink_to("/not/mounted.png")
    code, said = gradshard(project, "prepare")
    assert code == 2
    assert f"{file} is broken (it is a link to /not/mounted.png, which is not there): repair or remove it" in said
    change(project, broken="skip")
    code, said = gradshard(project, "prepare")
    assert code == 0
    assert "train: 1 broken images are skipped" in said


def test_classes_that_are_named_but_have_no_training_images_are_told(project, gradshard):
    names = [*(f"digit{digit}" for digit in range(10)), "eleven"]
    (project.path / "names.txt").write_text("\n".join(names))
    change(project, class_names="names.txt")
    code, said = gradshard(project, "prepare")
    assert code == 0
    assert "note: of 11 classes, these have no training images: eleven" in said


def test_images_that_are_passed_over_and_numbers_that_are_sorted_as_text_are_told(project, gradshard):
    for split in ("train", "val"):
        for digit in range(10):
            (project.path / f"images/{split}/digit{digit}").rename(project.path / f"images/{split}/{digit + 1}")
    Image.new("RGB", (32, 32)).save(project.path / "images/train/7/more.gif")
    Image.new("RGB", (32, 32)).save(project.path / "images/train/loose.png")
    code, said = gradshard(project, "prepare")
    assert code == 0
    assert "note: train: 2 images are passed over (1 .gif, 1 in no folder of a class): see docs/datasets.md" in said
    assert "note: the folders are numbers, but labels follow their order as text: 10 is label 1; name the" in said


def test_the_folder_may_be_named_by_the_variable(project, gradshard, monkeypatch):
    project.edit(lambda params: params["dataset"].pop("path"))
    monkeypatch.delenv("GRADSHARD_DATA", raising=False)
    code, said = gradshard(project, "prepare")
    assert code == 2
    assert "set dataset.path in the parameters, or GRADSHARD_DATA" in said
    monkeypatch.setenv("GRADSHARD_DATA", str(project.path / "images"))
    assert gradshard(project, "prepare")[0] == 0


@pytest.mark.parametrize(
    ("dataset", "saying"),
    [
        ({"name": "imagefolder"}, "dataset.size is missing: how many pixels high and wide"),
        ({"name": "imagefolder", "size": 32, "classes": 10}, "dataset.classes is for other datasets"),
        ({"name": "imagefolder", "size": 32, "crop": 1.5}, "dataset.crop should be less than or equal to 1"),
        ({"name": "imagefolder", "size": 32, "broken": "ignore"}, "dataset.broken should be 'fail' or 'skip'"),
        ({"name": "imagefolder", "size": 32, "interpolation": "cubic"}, "dataset.interpolation should be 'nearest'"),
        ({"name": "imagefolder", "size": 32, "test": "/b"}, "dataset.test must not be empty or begin with /, but is"),
        ({"name": "imagefolder", "siez": 32}, "unknown key dataset.siez (did you mean size?)"),
        (
            {"name": "mnist5k", "size": 32},
            "dataset.size is for dataset.name imagefolder, huggingface or torchvision, not mnist5k: remove it",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused(project, gradshard, dataset, saying):
    project.edit(lambda params: params.update(dataset=dataset))
    code, said = gradshard(project, "prepare")
    assert code == 2
    assert f"gradshard: params.yaml: {saying}" in said


def test_a_dataset_without_training_images_trains_nothing(project, gradshard):
    shutil.rmtree(project.path / "images/train")
    change(project, train=None)
    assert gradshard(project, "prepare")[0] == 0
    for stage in (["train-static", "A"], ["train-robust", "A_adv"]):
        code, said = gradshard(project, *stage)
        assert code == 2
        assert "dataset imagefolder has no training images, because dataset.train is null" in said


@pytest.mark.slow
def test_real_cifar_images_pass_unchanged(project, gradshard, cifar10_images):
    change(project, path=str(cifar10_images))
    code, said = gradshard(project, "prepare")
    assert code == 0, said
    data = open_dataset(project.path / "data/imagefolder.zarr")
    assert (len(data.train), len(data.test), data.sample_shape, data.classes) == (10_000, 2_000, (3, 32, 32), 10)
    assert data.train.digest.startswith("858877603283")
    images, labels = data.train.load()
    assert np.bincount(labels).tolist() == [1000] * 10
    for row, file in enumerate(data.train.read_files()):
        if row % 50 == 0:
            assert np.array_equal(images[row], np.asarray(Image.open(cifar10_images / file)).transpose(2, 0, 1))


@pytest.mark.slow
def test_real_photographs_become_299_by_299(project, gradshard, imagenet_sample):
    change(project, path=str(imagenet_sample), size=299)
    code, said = gradshard(project, "prepare")
    assert code == 0, said
    data = open_dataset(project.path / "data/imagefolder.zarr")
    assert (len(data.train), len(data.test), data.sample_shape, data.classes) == (100, 20, (3, 299, 299), 100)
    assert data.class_names[0] == "n01440764"
    assert list(data.class_names) == sorted(data.class_names)
    _, labels = data.test.load()
    names = [file.split("/")[1] for file in data.test.read_files()]
    assert names == [data.class_names[label] for label in labels]
