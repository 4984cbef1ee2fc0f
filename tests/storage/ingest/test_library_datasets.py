"""Datasets as Hugging Face's and torchvision's libraries keep them: their pixels, their order, and what is refused."""

import dataclasses
import gzip
import hashlib
import io
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from PIL import Image

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import open_dataset, rows_digest
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.ingest.decode import Transform
from gradshard.storage.ingest.huggingface import huggingface
from gradshard.storage.ingest.sources import idx
from gradshard.storage.ingest.torchvision_datasets import torchvision_dataset
from tests.helpers.idx_files import idx_bytes, write_digits
from tests.helpers.servers import plain_http

FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """In a folder of its own, with a cache of its own, and no hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def few(digits):
    """Some 200 digits to train on and 50 to test, as arrays."""
    return {split: tuple(part[:rows] for part in digits[split]) for split, rows in (("train", 200), ("test", 50))}


def table(images, labels, features=FEATURES, **columns):
    names = list(features)
    pictures = [Image.fromarray(np.squeeze(image)) for image in images]
    return datasets.Dataset.from_dict({names[0]: pictures, names[1]: labels, **columns}, features=features)


def pictures(few):
    return {split: table(*rows) for split, rows in few.items()}


def as_parquet(few):
    Path("raw/data").mkdir(parents=True)
    for split, data in pictures(few).items():
        # Eleven files, whose rows follow one another in the order of their names.
        for number in range(11):
            part = data.shard(11, number, contiguous=True)
            part.to_parquet(f"raw/data/{split}-{number:05}-of-00011.parquet")


def as_saved(few):
    datasets.DatasetDict(pictures(few)).save_to_disk("raw")


def as_arrow(few):
    for split, data in pictures(few).items():
        data.save_to_disk(f"saved/{split}")
        (source,) = Path(f"saved/{split}").glob("*.arrow")
        Path("raw").mkdir(exist_ok=True)
        source.rename(f"raw/{split}-00000.arrow")


def as_plain_parquet(few):
    """Parquet of another program, which knows nothing of features: bytes of PNG files."""
    Path("raw").mkdir()
    for split, (images, labels) in few.items():
        files = []
        for image in images:
            Image.fromarray(image[0]).save(content := io.BytesIO(), "png")
            files.append(content.getvalue())
        pq.write_table(pa.table({"image": files, "label": labels.tolist()}), f"raw/{split}.parquet")


@pytest.mark.parametrize("write", [as_parquet, as_saved, as_arrow, as_plain_parquet])
def test_the_same_digits_have_the_same_digest_however_they_lie(few, write):
    write(few)
    raw = huggingface(Path("raw"))
    write_digits(Path("idx"), few)
    expected = idx(Path("idx"))
    assert raw.classes == 10
    for split, (images, labels) in raw.splits.items():
        theirs = expected.splits[split]
        assert rows_digest(images[:], labels, classes=10) == rows_digest(theirs[0][:], theirs[1], classes=10)
        assert np.array_equal(images[7:12], few[split][0][7:12])
    assert raw.notes == ("raw: the images are those of column image, the labels those of label",)


@pytest.mark.parametrize("kind", ["MNIST", "FashionMNIST", "KMNIST"])
def test_torchvisions_digits_have_that_digest_too(few, kind):
    write_digits(Path(f"root/{kind}/raw"), few)
    raw, expected = torchvision_dataset(Path("root"), kind=kind), idx(Path(f"root/{kind}/raw"))
    assert (raw.classes, len(raw.class_names)) == (10, 10)
    for split, (images, labels) in raw.splits.items():
        theirs = expected.splits[split]
        assert rows_digest(images[:], labels, classes=10) == rows_digest(theirs[0][:], theirs[1], classes=10)


def test_a_class_is_called_with_its_arguments(few):
    for split, rows in few.items():
        for name, array in (("images-idx3", rows[0][:, 0]), ("labels-idx1", rows[1])):
            file = Path(f"root/EMNIST/raw/emnist-digits-{split}-{name}-ubyte")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(idx_bytes(array))
    raw = torchvision_dataset(Path("root"), kind="EMNIST", arguments={"split": "digits"})
    assert {split: len(labels) for split, (_, labels) in raw.splits.items()} == {"train": 200, "test": 50}
    assert np.array_equal(raw.splits["test"][0][:], few["test"][0])


def test_labels_that_a_class_does_not_list_are_read_row_by_row(few):
    """RenderedSST2 keeps pairs of file and label."""
    for split, rows in few.items():
        for row, (image, label) in enumerate(zip(*rows, strict=True)):
            name = "positive" if label > 4 else "negative"
            folder = Path(f"root/rendered-sst2/{split}/{name}")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / f"{row:03}.png")
    raw = torchvision_dataset(Path("root"), kind="RenderedSST2")
    images, labels = raw.splits["test"]
    assert images.shape == (50, 3, 28, 28)
    order = np.argsort(few["test"][1] > 4, kind="stable")
    assert np.array_equal(labels, (few["test"][1] > 4)[order])
    assert np.array_equal(images[3:9][:, 1], few["test"][0][order][3:9, 0])
    assert raw.class_names == ("negative", "positive")


def test_the_names_of_the_classes_are_kept_where_they_are_told(few):
    named = datasets.Features({**FEATURES, "label": datasets.ClassLabel(names=[f"digit {k}" for k in range(10)])})
    datasets.DatasetDict({s: table(*rows, features=named) for s, rows in few.items()}).save_to_disk("raw")
    assert huggingface(Path("raw")).class_names == tuple(f"digit {k}" for k in range(10))
    assert huggingface(Path("raw"), classes=12).class_names == ()


def test_one_hot_labels_are_taken_as_such_and_it_is_told(few):
    rows = datasets.Features({**FEATURES, "label": datasets.Sequence(datasets.Value("int64"), length=10)})
    hot = {s: table(images, np.eye(10, dtype=int)[labels], features=rows) for s, (images, labels) in few.items()}
    datasets.DatasetDict(hot).save_to_disk("raw")
    raw = huggingface(Path("raw"))
    assert np.array_equal(raw.splits["train"][1], few["train"][1])
    assert [
        note for note in raw.notes if note.endswith("the labels of train are one-hot: the place of the 1 is the label")
    ]


def test_splits_that_number_their_classes_otherwise_are_refused(few):
    names = [f"digit {k}" for k in range(10)]
    features = {
        split: datasets.Features({**FEATURES, "label": datasets.ClassLabel(names=its)})
        for split, its in (("train", names), ("test", [*names[1:], names[0]]))
    }
    datasets.DatasetDict({s: table(*rows, features=features[s]) for s, rows in few.items()}).save_to_disk("raw")
    with pytest.raises(GradshardError, match=r"the classes digit 0, .* in training images and digit 1, .* in test"):
        huggingface(Path("raw"))


def test_columns_are_found_by_their_kind_or_named(few):
    word = datasets.Value("string")
    kinds = datasets.Features({"picture": FEATURES["image"], "digit": FEATURES["label"], "label": word})
    words = {split: table(*rows, features=kinds, label=["a"] * len(rows[1])) for split, rows in few.items()}
    datasets.DatasetDict(words).save_to_disk("raw")
    raw = huggingface(Path("raw"), columns=["picture", "digit"])
    assert np.array_equal(raw.splits["train"][1], few["train"][1])
    with pytest.raises(GradshardError, match="column label: labels must be integers"):
        huggingface(Path("raw"))
    datasets.DatasetDict({s: data.remove_columns("label") for s, data in words.items()}).save_to_disk("other")
    raw = huggingface(Path("other"))
    assert "the images are those of column picture, the labels those of digit" in raw.notes[0]


def as_arrays(few, feature):
    features = datasets.Features({"image": feature, "label": datasets.Value("int64")})
    parts = {
        split: datasets.Dataset.from_dict({"image": list(images), "label": labels}, features=features)
        for split, (images, labels) in few.items()
    }
    datasets.DatasetDict(parts).save_to_disk("raw")


LINES = datasets.Sequence(datasets.Sequence(datasets.Value("uint8")))
FRACTIONS = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))


@pytest.mark.parametrize(
    ("feature", "scale"),
    [
        (datasets.Array2D((28, 28), "uint8"), None),
        (datasets.Array3D((1, 28, 28), "uint8"), None),
        (LINES, None),
        (datasets.Sequence(LINES, length=1), None),
        (datasets.Array2D((28, 28), "uint8"), 1),
        (datasets.Array2D((28, 28), "int32"), 1),
    ],
)
def test_arrays_are_images_too_and_those_of_uint8_need_no_scale(few, feature, scale):
    planar = feature == LINES or isinstance(feature, datasets.Array2D)
    as_arrays({split: (images[:, 0] if planar else images, labels) for split, (images, labels) in few.items()}, feature)
    images, labels = huggingface(Path("raw"), scale=scale).splits["train"]
    assert np.array_equal(images[:], few["train"][0])
    assert np.array_equal(labels, few["train"][1])


@pytest.mark.parametrize("library", ["huggingface", "torchvision"])
def test_a_size_resizes_as_for_folders_of_images(few, library):
    how = Transform(20, 1.0, "bilinear")
    if library == "huggingface":
        as_saved(few)
        raw = huggingface(Path("raw"), transform=how)
    else:
        write_digits(Path("root/MNIST/raw"), few)
        raw = torchvision_dataset(Path("root"), kind="MNIST", transform=how)
    images, _ = raw.splits["train"]
    assert images.shape == (200, 3, 20, 20)
    expected = Image.fromarray(few["train"][0][3, 0]).convert("RGB").resize((20, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(images[3:4][0], np.asarray(expected).transpose(2, 0, 1))


def test_real_colour_photographs_are_the_pixels_of_their_files(cifar10_images):
    files = sorted((cifar10_images / "test").glob("*/*"))[::40]
    names = sorted({file.parent.name for file in files})
    data = {"image": [str(file) for file in files], "label": [names.index(file.parent.name) for file in files]}
    features = datasets.Features({**FEATURES, "label": datasets.ClassLabel(names=names)})
    Path("raw").mkdir()
    for split in ("train", "test"):
        # The bytes of the images go along.
        datasets.Dataset.from_dict(data, features=features).to_parquet(f"raw/{split}.parquet")
    raw = huggingface(Path("raw"))
    images, labels = raw.splits["test"]
    assert images.shape == (len(files), 3, 32, 32)
    assert raw.class_names == tuple(names)
    for row, file in enumerate(files):
        assert np.array_equal(images[row : row + 1][0], np.asarray(Image.open(file)).transpose(2, 0, 1))
        assert names[labels[row]] == file.parent.name


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"train": "training"}, r"raw has no split training: name one of train, test in dataset\.train"),
        ({"test": "validation"}, "raw has no split validation: name one of train, test"),
        ({"columns": ["picture", "label"]}, "split train has no column picture, but image, label: name those of image"),
        ({"columns": ["image", "image"]}, "column image: labels must be integers, but are images"),
        ({"transform": Transform(20, 1.0, "bilinear"), "columns": ["label", "label"]}, "row 0 is an array, which"),
        ({"columns": ["label", "label"]}, r"row 0 is no image but of shape \(\): name the column of images"),
    ],
)
def test_a_split_or_column_that_is_not_there_is_one_sentence(few, options, sentence):
    as_saved(few)
    with pytest.raises(GradshardError, match=sentence) as caught:
        huggingface(Path("raw"), **options)
    assert "\n" not in str(caught.value)


def damaged(few):
    as_plain_parquet(few)
    content = pq.read_table("raw/test.parquet").to_pydict()
    content["image"][31] = content["image"][31][:-300]
    pq.write_table(pa.table(content), "raw/test.parquet")


def sizes(few):
    images = [Image.fromarray(image[0]) for image in few["train"][0]]
    images[150] = images[150].crop((0, 0, 28, 20))
    other = datasets.Dataset.from_dict({"image": images, "label": few["train"][1]}, features=FEATURES)
    datasets.DatasetDict({"train": other, "test": pictures(few)["test"]}).save_to_disk("raw")


def changed(**columns):
    """Columns with other values, and their features."""

    def write(few):
        parts = {}
        for split, data in pictures(few).items():
            for name, (value, feature) in columns.items():
                data = data.remove_columns(name).add_column(name, [value] * len(data), feature=feature)
            parts[split] = data
        datasets.DatasetDict(parts).save_to_disk("raw")

    return write


def pale(few):
    images = [Image.fromarray(image[0]).convert("RGBA") for image in few["train"][0]]
    part = datasets.Dataset.from_dict({"image": images, "label": few["train"][1]}, features=FEATURES)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk("raw")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda few: None, "there is no folder raw: set dataset.path"),
        (lambda few: Path("raw").mkdir(), "raw is no dataset that can be read"),
        (damaged, "raw, split test, column image: the image of row 31 cannot be decoded"),
        (sizes, r"row 150 is an image of shape \(1, 20, 28\) and row 0 one of \(1, 28, 28\)"),
        (changed(label=("three", datasets.Value("string"))), "column label: labels must be integers, but are"),
        (changed(label=(0.5, datasets.Value("float64"))), "column label: labels must be integers, but are float"),
        (changed(label=(None, datasets.Value("int64"))), "column label: labels must be integers"),
        (changed(image=(None, datasets.Image())), "row 0 has no image"),
        (changed(image=([[1, 2], [3]], LINES)), "row 0 is no array, since its lists differ in length"),
        (changed(image=([[0.5, 1], [0]], FRACTIONS)), "row 0 is no array, since its lists differ in length"),
        (changed(image=([[1, 2], [3, None]], LINES)), "row 0 is no array, since .* something else than numbers"),
        (pale, "row 0 is an image of Pillow's mode RGBA: set dataset.size"),
        (lambda few: pictures(few)["train"].save_to_disk("raw"), "raw has no test split, but train: name the split"),
    ],
    ids=[
        "none",
        "empty",
        "damaged",
        "sizes",
        "words",
        "fractions",
        "null",
        "hole",
        "ragged",
        "ragged fractions",
        "gap",
        "mode",
        "split",
    ],
)
def test_what_is_no_dataset_is_one_sentence(few, write, sentence):
    write(few)
    with pytest.raises(GradshardError, match=sentence) as caught:
        [images[:] for images, _ in huggingface(Path("raw")).splits.values()]
    assert "\n" not in str(caught.value)


def test_several_splits_for_testing_have_to_be_told_apart(few):
    parts = pictures(few)
    datasets.DatasetDict(parts | {"validation": parts["test"]}).save_to_disk("raw")
    with pytest.raises(GradshardError, match="raw has test and validation: name the split of the test images"):
        huggingface(Path("raw"))
    assert len(huggingface(Path("raw"), test="validation").splits["test"][1]) == 50


def test_without_a_network_the_hub_is_one_sentence():
    with pytest.raises(GradshardError, match=r"the hub gives no dataset nobody/nothing@main \(.*: check the") as caught:
        huggingface(None, hub="nobody/nothing@main")
    assert "\n" not in str(caught.value)
    Path("nobody/nothing").mkdir(parents=True)
    with pytest.raises(GradshardError, match="is nobody/nothing, but that is a folder here too"):
        huggingface(None, hub="nobody/nothing@main")
    with pytest.raises(GradshardError, match=r"needs dataset\.path, a folder, or dataset\.hub"):
        huggingface(None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "MNIST"}, "torchvision finds no MNIST in root .*Dataset not found.* or set dataset.download to true"),
        ({"kind": "MNISTT"}, r"dataset.kind MNISTT: torchvision has no dataset of that name \(did you mean \w*MNIST"),
        ({"kind": "FakeData"}, "FakeData is no dataset with a training and a test split"),
        ({"kind": "CocoDetection"}, "CocoDetection is no dataset with a training and a test split"),
        ({"kind": "MNIST", "test": "val"}, "MNIST has the splits train and test alone"),
        ({"kind": "MNIST", "arguments": {"colour": 1}}, "has colour, which is not for MNIST here"),
        ({"kind": "MNIST", "arguments": {"download": True}}, "has download, which is not for MNIST here"),
        ({"kind": "ImageNet", "download": True}, "torchvision cannot download ImageNet"),
        ({"kind": "SVHN", "test": "val"}, "torchvision finds no SVHN in root"),
    ],
)
def test_what_torchvision_does_not_have_is_one_sentence(options, sentence):
    with pytest.raises(GradshardError, match=sentence) as caught:
        torchvision_dataset(Path("root"), **options)
    assert "\n" not in str(caught.value)
    assert not Path("root").exists()


def test_nothing_is_fetched_unless_that_is_told(few, monkeypatch):
    write_digits(Path("plain"), few)
    with plain_http(Path.cwd() / "server") as server:
        resources = []
        for file in sorted(Path("plain").iterdir()):
            content = gzip.compress(file.read_bytes(), mtime=0)
            (server.folder / f"{file.name}.gz").write_bytes(content)
            resources.append((f"{file.name}.gz", hashlib.md5(content).hexdigest()))
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{server.url}/"])
        with pytest.raises(GradshardError, match=r"set dataset\.download to true"):
            torchvision_dataset(Path("root"), kind="MNIST")
        assert not Path("root").exists()
        raw = torchvision_dataset(Path("root"), kind="MNIST", download=True)
        (server.folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"another")
        with pytest.raises(GradshardError, match="torchvision finds no MNIST in other") as caught:
            torchvision_dataset(Path("other"), kind="MNIST", download=True)
    assert "\n" not in str(caught.value)
    assert np.array_equal(raw.splits["test"][0][:], few["test"][0])


@pytest.mark.parametrize("library", ["huggingface", "torchvision"])
def test_images_are_decoded_a_chunk_at_a_time(few, library):
    as_saved(few)
    write_digits(Path("root/MNIST/raw"), few)
    raw = huggingface(Path("raw")) if library == "huggingface" else torchvision_dataset(Path("root"), kind="MNIST")
    decoded = []

    def noted(images):
        return dataclasses.replace(images, decode=lambda rows: decoded.append(len(rows)) or images.decode(rows))

    splits = {split: (noted(images), labels) for split, (images, labels) in raw.splits.items()}
    assert sum(write_dataset(Path("d.zarr"), name="d", classes=10, splits=splits)) == 250
    assert sum(decoded) == 250
    assert max(decoded) <= open_dataset(Path("d.zarr")).train.chunk < 20


@pytest.mark.parametrize("package", ["datasets", "torchvision"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, package):
    Path("raw").mkdir()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GradshardError, match=f"needs the package {package}: pip install"):
        huggingface(Path("raw")) if package == "datasets" else torchvision_dataset(Path("raw"), kind="MNIST")
