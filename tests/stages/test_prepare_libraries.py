"""The stage ``prepare`` on what Hugging Face's and torchvision's libraries keep: the same rows as from plain files."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gradshard.pipeline.loading import compute_signs
from gradshard.storage.formats.dataset import open_dataset
from tests.helpers.idx_files import write_digits

HUGGINGFACE = {"name": "huggingface", "path": "parquet"}
TORCHVISION = {"name": "torchvision", "path": "root", "kind": "MNIST"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def few(digits):
    return {split: tuple(part[:rows] for part in digits[split]) for split, rows in (("train", 300), ("test", 80))}


@pytest.fixture
def raw(project, few):
    """A project with the same digits as IDX files, as Parquet and where torchvision looks."""
    write_digits(project.path / "idx", few)
    write_digits(project.path / "root/MNIST/raw", few)
    (project.path / "parquet").mkdir()
    for split, rows in few.items():
        huggingface(*rows).to_parquet(str(project.path / f"parquet/{split}.parquet"))
    return project


def huggingface(images, labels):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    pictures = [Image.fromarray(image[0]) for image in images]
    return datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)


def prepare(project, gradshard, **dataset):
    project.edit(lambda params: params.update(dataset=dataset))
    code, said = gradshard(project, "prepare")
    assert code == 0, said
    return open_dataset(project.path / f"data/{dataset['name']}.zarr"), said


def test_the_same_digits_have_one_digest_from_files_from_parquet_and_from_torchvision(raw, gradshard, few, digits):
    expected, _ = prepare(raw, gradshard, name="idx", path="idx")
    found, said = prepare(raw, gradshard, **HUGGINGFACE)
    assert "note: parquet: the images are those of column image, the labels those of label" in said
    third, _ = prepare(raw, gradshard, **TORCHVISION)
    for split in ("train", "test"):
        assert len({getattr(data, split).digest for data in (expected, found, third)}) == 1
    assert found.class_names == tuple("0123456789")
    assert third.class_names[3] == "3 - three"
    # What the owner of the dataset hands to compute_signs is the same rows, too.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    store = compute_signs(model, huggingface(*few["train"]), raw.path / "signs/mine.zarr")
    assert store.manifest.dataset.digest == found.train.digest


@pytest.mark.parametrize("dataset", [HUGGINGFACE, TORCHVISION], ids=lambda dataset: dataset["name"])
def test_rows_sorted_by_class_are_shuffled_as_those_of_files(project, gradshard, few, dataset):
    ordered = {}
    for split, (images, labels) in few.items():
        order = np.argsort(labels, kind="stable")
        ordered[split] = images[order], labels[order]
    write_digits(project.path / "idx", ordered)
    write_digits(project.path / "root/MNIST/raw", ordered)
    datasets.DatasetDict({s: huggingface(*rows) for s, rows in ordered.items()}).save_to_disk(project.path / "parquet")
    expected, _ = prepare(project, gradshard, name="idx", path="idx", seed=4)
    found, said = prepare(project, gradshard, **dataset, seed=4)
    assert "train is sorted by class" in said
    assert (found.train.digest, found.test.digest) == (expected.train.digest, expected.test.digest)
    kept, _ = prepare(project, gradshard, **dataset, order="as_given")
    assert kept.train.digest != found.train.digest


def test_photographs_of_many_sizes_are_one_shape_by_size(project, gradshard, imagenet_sample):
    files = sorted(imagenet_sample.glob("val/*/*"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [str(file) for file in files], "label": [k % 2 for k in range(len(files))]}
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "validation": made}).save_to_disk(project.path / "parquet")
    found, _ = prepare(project, gradshard, **HUGGINGFACE, size=48)
    assert found.sample_shape == (3, 48, 48)
    folders = {"name": "imagefolder", "path": str(imagenet_sample), "train": "val", "test": "val", "size": 48}
    expected, _ = prepare(project, gradshard, **folders)
    paths, images = expected.test.read_files(), expected.test.read_images(0, len(files))
    places = {path: row for row, path in enumerate(paths)}
    order = [places[str(file.relative_to(imagenet_sample))] for file in files]
    assert np.array_equal(found.test.read_images(0, len(files)), images[order])


@pytest.mark.parametrize(
    ("dataset", "saying"),
    [
        (TORCHVISION | {"kind": None}, "dataset.kind is missing: the name of torchvision's class"),
        (HUGGINGFACE | {"kind": "MNIST"}, "dataset.kind is for dataset.name torchvision, not huggingface"),
        (HUGGINGFACE | {"train": None}, "dataset.train is null, which is for imagefolder alone"),
        (HUGGINGFACE | {"crop": 0.9}, "dataset.crop says how images are resized, but size is missing"),
        (HUGGINGFACE | {"hub": "ylecun/mnist"}, "dataset.hub and path are two places"),
        (HUGGINGFACE | {"columns": ["image"]}, "dataset.columns must name two columns"),
        (HUGGINGFACE | {"arguments": {"split": "x"}}, "dataset.arguments is for a dataset of your own"),
        ({"name": "huggingface", "hub": "parquet"}, "dataset.hub must be a name on the hub, OWNER/NAME"),
        (HUGGINGFACE | {"path": "nowhere"}, "there is no folder nowhere: set dataset.path"),
        (HUGGINGFACE | {"columns": ["picture", "label"]}, "has no column picture, but image, label"),
        (TORCHVISION | {"kind": "CIFAR10"}, "torchvision finds no CIFAR10 in root"),
        (TORCHVISION | {"layout": "hwc"}, "dataset.layout is for dataset.name npz or huggingface, not torchvision"),
        (TORCHVISION | {"classes": 4}, "label 7 of row 1 is out of range for 4 classes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(raw, gradshard, dataset, saying):
    given = {key: value for key, value in dataset.items() if key == "train" or value is not None}
    raw.edit(lambda params: params.update(dataset=given))
    code, said = gradshard(raw, "prepare")
    assert code == 2
    assert saying in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert not (raw.path / "data").exists()


@pytest.mark.parametrize("dataset", [HUGGINGFACE, TORCHVISION], ids=lambda dataset: dataset["name"])
def test_the_fingerprint_changes_with_the_files(raw, gradshard, dataset):
    found = []
    raw.edit(lambda params: params.update(dataset=dataset))
    for changed in (False, False, True):
        if changed:
            file = next(path for path in (raw.path / dataset["path"]).rglob("*") if path.is_file())
            file.write_bytes(file.read_bytes() + b"x")
        assert gradshard(raw, "fingerprint")[0] == 0
        found.append((raw.path / "data/raw.json").read_text())
    assert found[0] == found[1] != found[2]
    raw.edit(lambda params: params.update(dataset={"name": "huggingface", "hub": "ylecun/mnist@main"}))
    assert gradshard(raw, "fingerprint")[0] == 0
    assert '"hub":"ylecun/mnist@main"' in (raw.path / "data/raw.json").read_text()
