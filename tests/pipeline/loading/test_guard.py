"""A dataset is held against the store: other pixels, another order or length are refused, and the row is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from gradshard.pipeline.loading import SignedDataset, compute_signs
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset_writer import write_dataset
from tests.pipeline.loading.conftest import Digits, jittered

CACHE = Path(".partial/loading")


class Read(list):
    """What is called as all rows are read."""

    def __call__(self, done, total):
        self.append((done, total))


@pytest.fixture
def foreign(store):
    """A store that came from elsewhere: nothing here knows its rows."""
    shutil.rmtree(CACHE)
    return store


def swapped(images, labels, one, other):
    order = np.arange(len(labels))
    order[[one, other]] = other, one
    return images[order], labels[order]


FORMS = {
    "dataset": Digits,
    "arrays": lambda images, labels: (images, labels),
    "tensors": lambda images, labels: TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)),
    "a transform without a name": lambda images, labels: Digits(images, labels, lambda image: image),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_rows_are_read_once_and_then_a_sample(foreign, rows, form):
    once, again, changed = Read(), Read(), Read()
    SignedDataset(FORMS[form](*rows), foreign, on_rows=once)
    SignedDataset(FORMS[form](*(part.copy() for part in rows)), foreign, on_rows=again)
    assert once[-1] == (700, 700)
    assert again == []
    with pytest.raises(GradshardError, match="row 345 of the dataset has other pixels or another label"):
        SignedDataset(FORMS[form](*changed_pixel(*rows)), foreign, on_rows=changed)
    assert changed[-1] == (700, 700)


def test_what_has_no_state_to_know_it_by_is_read_whole_each_time(foreign, rows):
    class Local(Digits):
        pass

    for _ in range(2):
        read = Read()
        SignedDataset(Local(*rows), foreign, on_rows=read)
        assert read[-1] == (700, 700)


def test_the_dataset_that_a_store_was_made_of_here_is_known_already(store, base):
    SignedDataset(base, "signs/D.zarr", on_rows=lambda *_: pytest.fail("read again"))


def changed_pixel(images, labels):
    images = images.copy()
    images[345, 0, 14, 14] ^= 1
    return images, labels


def changed_label(images, labels):
    return images, np.where(np.arange(len(labels)) == 345, (labels + 1) % 10, labels)


OTHERS = {
    "pixel": (changed_pixel, "row 345 of the dataset has other pixels or another label"),
    "label": (changed_label, "row 345 of the dataset has other pixels or another label"),
    "swapped": (lambda i, k: swapped(i, k, 345, 400), "row 345 of the dataset is row 400 there"),
    "reversed": (lambda i, k: (i[::-1].copy(), k[::-1].copy()), "row 0 of the dataset is row 699 there"),
    "shorter": (lambda i, k: (i[:-1], k[:-1]), "made for the 700 rows of digits .train., but the dataset has 699"),
    "smaller": (lambda i, k: (i[:, :, 2:], k), "but the dataset's are of .1, 26, 28."),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_dataset_is_refused_and_the_first_row_that_differs_is_named(store, rows, name):
    change, told = OTHERS[name]
    with pytest.raises(GradshardError, match=told):
        SignedDataset(Digits(*change(*rows)), store)


@pytest.mark.parametrize("name", ["pixel", "label", "swapped", "reversed"])
def test_where_nothing_knows_the_rows_another_dataset_is_refused_all_the_same(foreign, rows, name):
    change, _ = OTHERS[name]
    with pytest.raises(GradshardError, match="other pixels or labels, or another order; name the prepared dataset"):
        SignedDataset(Digits(*change(*rows)), foreign)
    assert not list(CACHE.glob("checked-*.json"))


@pytest.mark.parametrize("name", ["pixel", "label", "swapped"])
def test_a_prepared_dataset_names_the_row_too(foreign, rows, name):
    change, told = OTHERS[name]
    assert sum(write_dataset(Path("d.zarr"), name="d", classes=10, splits={"train": rows, "test": rows})) == 1400
    with pytest.raises(GradshardError, match=told):
        SignedDataset(Digits(*change(*rows)), foreign, reference="d.zarr")


def test_a_prepared_dataset_of_other_rows_is_no_reference(foreign, rows, base):
    part = tuple(part[:100] for part in rows)
    assert sum(write_dataset(Path("d.zarr"), name="d", classes=10, splits={"train": part, "test": part}))
    with pytest.raises(GradshardError, match="is not the prepared dataset digits"):
        SignedDataset(base, foreign, reference="d.zarr")


def test_the_store_of_another_split_of_the_same_length_is_refused(model, base, digits):
    images, labels = (part[-700:] for part in digits["train"])
    other = compute_signs(model, (images, labels), "signs/other.zarr", name="digits", split="validation")
    with pytest.raises(GradshardError, match=r"700 rows of digits \(validation\), but row 0 of the dataset has other"):
        SignedDataset(base, other)


def test_a_dataset_that_shuffles_itself_at_every_reading_is_refused(store, base):
    class Shuffled(Digits):
        def __getitem__(self, row):
            return super().__getitem__(int(torch.randint(len(self), ())))

    with pytest.raises(GradshardError, match="gives other pixels or another label the second time it is read"):
        SignedDataset(Shuffled(base.images, base.labels), store)


def test_a_sample_finds_another_order_and_is_refused_where_it_proves_nothing(foreign, rows, base):
    with pytest.raises(GradshardError, match="check them once by check='whole'"):
        SignedDataset(base, foreign, check="sample")
    SignedDataset(base, foreign)
    SignedDataset(base, foreign, check="sample", on_rows=lambda *_: pytest.fail("read all"))
    with pytest.raises(GradshardError, match="row 0 of the dataset is row 699 there"):
        SignedDataset(Digits(rows[0][::-1].copy(), rows[1][::-1].copy()), foreign, check="sample")


def test_hashes_of_rows_that_were_changed_are_not_believed(store, rows, base):
    (file,) = CACHE.glob("rows-*.hashes")
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    SignedDataset(base, store)


def test_a_dataset_with_a_random_transform_or_normalised_is_refused(store, rows):
    with pytest.raises(GradshardError, match="a random transform is left in"):
        SignedDataset(Digits(*rows, jittered), store)
    with pytest.raises(GradshardError, match=r"not in \[0, 1\]"):
        SignedDataset(Digits(*rows, lambda image: (image - 0.13) / 0.31), store)


def test_stores_of_two_datasets_are_not_taken_together(model, store, base, rows):
    other = compute_signs(model, Digits(*(part[:600] for part in rows)), "signs/other.zarr")
    with pytest.raises(GradshardError, match=r"other.zarr was made for the 600 rows"):
        SignedDataset(base, {"D": store, "other": other})
