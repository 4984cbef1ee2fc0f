"""Folders of images as datasets: what is in them, in which order, and what becomes of broken images."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import open_dataset, rows_digest
from gradshard.storage.ingest.decode import Transform, read_image
from gradshard.storage.ingest.folder_builder import FolderBuilder, is_published
from gradshard.storage.ingest.folder_shards import make_shard
from gradshard.storage.ingest.image_folder import open_folder
from tests.helpers.imagefolders import files_of, write_folder

AS_IS = Transform(32, 0.875, "bicubic")
CLASSES = tuple(f"digit{digit}" for digit in range(10))


def opened(root, **options):
    defaults = {"train": "train", "test": None, "transform": AS_IS, "seed": 0, "class_names": None}
    return open_folder(root, **defaults | options)


def build(root, work, target, *, skip=False, **options):
    """Build a dataset in this process; gives the builder and how many shards were made in each round."""
    builder = FolderBuilder(work, opened(root, **options), name="images", skip=skip)
    builder.scan()
    rounds = []
    for split in ("train", "test"):
        while True:
            task = builder.lay_out(split)
            missing = builder.missing(split)
            broken = [b for shard in missing for b in make_shard(task, shard).broken]
            rounds.append(len(missing))
            if not broken:
                break
            builder.leave_out(split, broken)
    builder.publish(target)
    return builder, rounds


@pytest.fixture(scope="session")
def folder_of_digits(tmp_path_factory, digits):
    """120 training and 40 test images, 32 x 32 pixels, in five formats. Not to be changed."""
    return write_folder(tmp_path_factory.mktemp("folder"), digits)


@pytest.fixture
def folder(folder_of_digits, tmp_path):
    return shutil.copytree(folder_of_digits, tmp_path / "images")


@pytest.fixture
def made(folder, tmp_path):
    build(folder, tmp_path / "work", tmp_path / "d.zarr")
    return open_dataset(tmp_path / "d.zarr")


def test_every_row_is_its_file_with_its_class(folder, made):
    for split, folder_name, count in ((made.train, "train", 120), (made.test, "val", 40)):
        images, labels = split.load()
        files = split.read_files()
        assert (images.shape, len(set(files))) == ((count, 3, 32, 32), count)
        for image, label, file in zip(images, labels, files, strict=True):
            assert file.startswith(f"{folder_name}/{made.class_names[label]}/")
            assert np.array_equal(image, read_image(folder / file, AS_IS))
    assert made.class_names == CLASSES


def test_the_digest_is_that_of_the_rows(made):
    images, labels = made.train.load()
    assert made.train.digest == rows_digest(images, labels, classes=10)


def test_classes_and_files_are_read_without_gradshard(made, tmp_path):
    attributes = zarr.open_group(tmp_path / "d.zarr", mode="r").attrs
    assert tuple(attributes["class_names"]) == CLASSES
    assert attributes["images"]["crop"] == 0.875
    assert attributes["images"]["folders"] == {"train": "train", "test": "val"}
    assert len(pq.read_table(tmp_path / "d.zarr/test/files.parquet")["file"]) == 40


def test_the_rows_are_shuffled_by_the_seed_and_by_nothing_else(folder, made, tmp_path):
    build(folder, tmp_path / "again", tmp_path / "again.zarr")
    build(folder, tmp_path / "other", tmp_path / "other.zarr", seed=1)
    assert files_of(tmp_path / "again.zarr") == files_of(tmp_path / "d.zarr")
    files, other = made.train.read_files(), open_dataset(tmp_path / "other.zarr").train.read_files()
    assert sorted(files) == sorted(other)
    assert files != other
    assert files != sorted(files)


def test_the_order_of_making_and_dates_of_files_do_not_matter(folder, made, tmp_path):
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (number, number))
    builder = FolderBuilder(tmp_path / "work2", opened(folder), name="images", skip=False)
    builder.scan()
    for split in ("test", "train"):
        task = builder.lay_out(split)
        for shard in reversed(builder.missing(split)):
            make_shard(task, shard)
    builder.publish(tmp_path / "backwards.zarr")
    assert files_of(tmp_path / "backwards.zarr") == files_of(tmp_path / "d.zarr")


def test_images_are_resized(folder, tmp_path):
    build(folder, tmp_path / "work", tmp_path / "d.zarr", transform=Transform(20, 0.8, "lanczos"))
    train = open_dataset(tmp_path / "d.zarr").train
    assert train.sample_shape == (3, 20, 20)
    first = read_image(folder / train.read_files()[7], Transform(20, 0.8, "lanczos"))
    assert np.array_equal(train.read_images(7, 8)[0], first)


def test_a_changed_file_makes_its_shard_again_and_no_other(folder, tmp_path):
    builder = FolderBuilder(tmp_path / "work", opened(folder), name="images", skip=False)
    builder.scan()
    task = builder.lay_out("train")
    for shard in range(task.cut.shards):
        make_shard(task, shard)
    assert builder.missing("train") == []
    changed = next(folder.glob("train/digit3/*.png"))
    Image.new("RGB", (32, 32), "red").save(changed)
    builder.scan()
    builder.lay_out("train")
    (shard,) = builder.missing("train")
    make_shard(task, shard)
    build(folder, tmp_path / "work", tmp_path / "d.zarr")
    build(folder, tmp_path / "fresh", tmp_path / "fresh.zarr")
    assert files_of(tmp_path / "d.zarr") == files_of(tmp_path / "fresh.zarr")


@pytest.mark.parametrize("count", [1, 7, 30])
def test_broken_images_have_no_row_and_are_listed(folder, made, tmp_path, count):
    before = made.train.read_files()
    broken = [before[i] for i in np.random.default_rng(count).permutation(120)[:count]]
    for file in broken:
        (folder / file).write_bytes((folder / file).read_bytes()[:60])
    builder, rounds = build(folder, tmp_path / "work2", tmp_path / "without.zarr", skip=True)
    train = open_dataset(tmp_path / "without.zarr").train
    files = train.read_files()
    assert set(files) == set(before) - set(broken)
    for row, image in enumerate(train.load()[0]):
        assert np.array_equal(image, read_image(folder / files[row], AS_IS))
    skipped = zarr.open_group(tmp_path / "without.zarr/train", mode="r").attrs["skipped"]
    assert [entry["file"] for entry in skipped] == sorted(broken)
    assert all(entry["reason"] for entry in skipped)
    # No other row moved but those from the end that took the places of the broken ones.
    stayed = [(a, b) for a, b in zip(before, files, strict=False) if a not in broken]
    assert all(a == b for a, b in stayed)
    # A second round without them, and it is the last one.
    assert len(rounds) == 3
    assert [b.entry.file for b in builder.left_out("train")] == sorted(broken)


def test_where_one_image_is_broken_only_its_shard_and_the_last_are_made_again(tmp_path, digits):
    folder = write_folder(tmp_path / "images", digits, train=600)
    build(folder, tmp_path / "whole", tmp_path / "whole.zarr")
    first = open_dataset(tmp_path / "whole.zarr").train.read_files()[0]
    (folder / first).write_bytes(b"nothing")
    _, rounds = build(folder, tmp_path / "work", tmp_path / "d.zarr", skip=True)
    assert rounds[0] > 10
    assert rounds[1] == 2


def test_skipping_twice_gives_the_same_bytes_and_a_repaired_image_comes_back(folder, made, tmp_path):
    file = made.train.read_files()[3]
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[:70])
    build(folder, tmp_path / "one", tmp_path / "one.zarr", skip=True)
    build(folder, tmp_path / "two", tmp_path / "two.zarr", skip=True)
    assert files_of(tmp_path / "one.zarr") == files_of(tmp_path / "two.zarr")
    (folder / file).write_bytes(whole)
    build(folder, tmp_path / "one", tmp_path / "three.zarr", skip=True)
    assert files_of(tmp_path / "three.zarr") == files_of(tmp_path / "d.zarr")


def test_a_dead_link_is_skipped_as_a_broken_image_and_comes_back_with_its_target(folder, made, tmp_path):
    file = next(folder.glob("train/*/0007.*"))
    file.rename(tmp_path / "target")
    file.symlink_to(tmp_path / "target")
    (tmp_path / "target").rename(tmp_path / "away")
    build(folder, tmp_path / "again", tmp_path / "e.zarr", skip=True)
    assert len(open_dataset(tmp_path / "e.zarr").train) == 119
    (tmp_path / "away").rename(tmp_path / "target")
    build(folder, tmp_path / "again", tmp_path / "e.zarr", skip=True)
    assert open_dataset(tmp_path / "e.zarr").train.digest == made.train.digest


def test_a_test_set_whose_images_are_all_broken_is_refused(folder, tmp_path):
    for file in folder.glob("val/*/*"):
        file.write_bytes(b"")
    with pytest.raises(GradshardError, match=r"val: all 40 images are broken, such as val/digit0/"):
        build(folder, tmp_path / "work", tmp_path / "d.zarr", skip=True)


def test_leftovers_are_swept_away(folder, made, tmp_path):
    build(folder, tmp_path / "work2", tmp_path / "again.zarr")
    builder = FolderBuilder(tmp_path / "work3", opened(folder), name="images", skip=False)
    builder.scan()
    task = builder.lay_out("train")
    stray = task.store / "images/c/99/0/0/0"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"a shard of a longer order")
    build(folder, tmp_path / "work3", tmp_path / "d2.zarr")
    assert files_of(tmp_path / "d2.zarr") == files_of(tmp_path / "d.zarr")


def test_a_dataset_that_is_there_is_known_by_what_it_was_made_of(folder, made, tmp_path):
    builder = FolderBuilder(tmp_path / "work", opened(folder), name="images", skip=False)
    builder.scan()
    assert is_published(tmp_path / "d.zarr", builder.attributes())
    other = FolderBuilder(tmp_path / "work", opened(folder, seed=3), name="images", skip=False)
    assert not is_published(tmp_path / "d.zarr", other.attributes())
    assert not is_published(tmp_path / "nothing.zarr", builder.attributes())


def test_the_test_folder_is_called_val_or_test(tmp_path, digits):
    assert opened(write_folder(tmp_path / "a", digits, test_folder="test")).test == "test"
    assert opened(write_folder(tmp_path / "b", digits)).test == "val"
    both = write_folder(write_folder(tmp_path / "c", digits), digits, test_folder="test")
    with pytest.raises(GradshardError, match=r"both val and test: name the folder .* in dataset\.test"):
        opened(both)
    assert opened(both, test="test").test == "test"
    shutil.rmtree(both / "val")
    shutil.rmtree(both / "test")
    with pytest.raises(GradshardError, match="neither val nor test"):
        opened(both)


def test_without_training_images_the_classes_are_those_of_the_test_images(folder, tmp_path):
    shutil.rmtree(folder / "train")
    build(folder, tmp_path / "work", tmp_path / "d.zarr", train=None)
    data = open_dataset(tmp_path / "d.zarr")
    assert (len(data.train), len(data.test), data.sample_shape) == (0, 40, (3, 32, 32))
    assert data.class_names == CLASSES
    assert data.train.read_files() == []
    assert data.train.load()[0].shape == (0, 3, 32, 32)
    with pytest.raises(GradshardError, match="has no training images"):
        data.check_trainable()


def test_a_file_of_class_names_gives_labels_to_folders_that_hold_some_of_them(folder, tmp_path):
    names = ["other", *reversed(CLASSES), "more"]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    build(folder, tmp_path / "work", tmp_path / "d.zarr", class_names=tmp_path / "names.txt")
    data = open_dataset(tmp_path / "d.zarr")
    assert (data.classes, data.class_names) == (12, tuple(names))
    label, file = data.train.read_labels(0, 1)[0], data.train.read_files()[0]
    assert names[label] == Path(file).parts[1]


def test_class_names_may_begin_with_a_byte_order_mark(folder, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(CLASSES), encoding="utf-8-sig")
    assert opened(folder, class_names=tmp_path / "names.txt").class_names == CLASSES


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path):
    with pytest.raises(GradshardError, match=r"there is no folder .*/nowhere: set dataset\.path to"):
        opened(tmp_path / "nowhere")
    (tmp_path / "images.tar").write_bytes(b"")
    with pytest.raises(GradshardError, match=r"/images\.tar is no folder: set dataset\.path to"):
        opened(tmp_path / "images.tar")


def test_a_folder_of_one_class_is_refused(folder, tmp_path):
    (tmp_path / "names.txt").write_text("digit3\n")
    with pytest.raises(GradshardError, match=r"names\.txt: digit3 is the only class, but classification needs two"):
        opened(folder, class_names=tmp_path / "names.txt")
    for path in folder.glob("train/*"):
        if path.name != "digit3":
            shutil.rmtree(path)
    with pytest.raises(GradshardError, match="train: digit3 is the only class"):
        opened(folder)


@pytest.mark.parametrize("text", ["a\nb\na\n", "", None])
def test_a_file_that_does_not_name_each_class_once_is_refused(folder, tmp_path, text):
    if text is not None:
        (tmp_path / "names.txt").write_text(text)
    with pytest.raises(GradshardError, match=r"dataset\.class_names: .*names\.txt"):
        opened(folder, class_names=tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: shutil.rmtree(f / "train"), r"no folder .*train: an image folder has train/CLASS"),
        (lambda f: (f / "val/digit11").mkdir(), r"val/digit11: there is no class digit11 in the training images"),
        (lambda f: (f / "train/digit11").mkdir(), r"train/digit11 holds no images \(\.bmp, .*remove the folder"),
        (lambda f: [p.unlink() for p in f.glob("val/*/*")], r"val holds no images"),
        (lambda f: [shutil.rmtree(p) for p in f.glob("train/*")], r"train holds no folders: it must have one for each"),
    ],
    ids=["no train", "another class", "an empty class", "no test image", "no class"],
)
def test_a_folder_that_is_laid_out_otherwise_is_refused(folder, tmp_path, damage, sentence):
    damage(folder)
    with pytest.raises(GradshardError, match=sentence):
        build(folder, tmp_path / "work", tmp_path / "d.zarr")
