"""Stores by ``import gradshard``: written, verified and audited, and wrong use told in one sentence."""

import re
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import gradshard as gs
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.formats.sign_writer import StoreBuilder
from tests.helpers.stores import random_signs


@pytest.fixture
def written(small_dataset, tmp_path):
    signs = random_signs(700, 784, seed=3)
    gs.write_signs(tmp_path / "mine.zarr", signs, small_dataset.train, model=nn.Linear(2, 2), name="mine")
    return tmp_path / "mine.zarr", signs


def test_written_signs_come_back_and_are_intact(written):
    path, signs = written
    store = gs.open_signs(path)
    assert isinstance(store, SignStore)
    back = gs.unpack_signs(torch.from_numpy(store.read(0, 700)), torch.Size((700, 1, 28, 28)))
    assert np.array_equal(back.numpy().reshape(700, 784), signs)
    assert gs.verify(path) == []
    assert [entry.name for entry in path.parent.iterdir()] == ["mine.zarr"]


def test_a_changed_byte_is_found(written):
    path, _ = written
    shard = next(file for file in sorted((path / "signs").rglob("*")) if file.is_file() and file.name != "zarr.json")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    assert gs.verify(path) != []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda signs: signs[:5], "but the split needs int8"),
        (lambda signs: signs.astype(np.float32), "signs are float32"),
        (lambda signs: signs * 2, "signs hold other values than -1, 0 and 1"),
        (lambda signs: np.where(signs == 1, np.int8(-128), signs), "signs hold other values than -1, 0 and 1"),
    ],
)
def test_signs_that_do_not_fit_are_refused(small_dataset, tmp_path, change, sentence):
    with pytest.raises(gs.GradshardError, match=sentence):
        gs.write_signs(
            tmp_path / "M.zarr", change(random_signs(700, 784, seed=0)), small_dataset.train, model=nn.ReLU(), name="M"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.float32, bool, object])
def test_labels_that_are_no_integers_are_refused(small_dataset, tmp_path, dtype):
    data, labels = small_dataset.train, small_dataset.train.read_labels().astype(dtype)
    with pytest.raises(gs.GradshardError, match=r"labels are .*: give the numbers of classes, as integers"):
        gs.write_signs(
            tmp_path / "M.zarr", random_signs(700, 784, seed=0), data, model=nn.ReLU(), name="M", labels=labels
        )
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_never_overwritten(written, small_dataset):
    path, signs = written
    with pytest.raises(gs.GradshardError, match=r"is there: a published store is never changed"):
        gs.write_signs(path, signs, small_dataset.train, model=nn.ReLU(), name="M")


def test_a_dataset_is_no_split(small_dataset, tmp_path):
    with pytest.raises(gs.GradshardError, match="split is a Dataset: give one of a dataset's, such as its train"):
        gs.write_signs(tmp_path / "M.zarr", random_signs(700, 784, seed=0), small_dataset, model=nn.ReLU(), name="M")


def test_an_honest_store_passes_the_audit_and_a_forged_one_does_not(small_dataset, linear_digits, tmp_path):
    data, model = small_dataset.train, linear_digits
    images = torch.from_numpy(data.take_images(np.arange(700))).float() / 255
    grad, _ = input_gradient(model, images, torch.from_numpy(data.read_labels()))
    signs = grad.sign().to(torch.int8).numpy()
    for name, stored, honest in (("right", signs, True), ("turned", -signs, False)):
        gs.write_signs(tmp_path / f"{name}.zarr", stored, data, model=model, name="linear")
        assert gs.audit(gs.open_signs(tmp_path / f"{name}.zarr"), data, model, rows=50, seed=0).honest is honest
    with pytest.raises(gs.GradshardError, match="rows is 0, of which nothing can be told"):
        gs.audit(gs.open_signs(tmp_path / "right.zarr"), data, model, rows=0)


@pytest.mark.parametrize(
    "way",
    [{"label": "predicted"}, {"label": "least_likely"}, {"label": "true"}, {"attack": "rand_fgsm", "epsilon": 0.3}],
    ids=str,
)
def test_an_audit_finds_labels_that_are_no_class_wrong(small_dataset, linear_digits, tmp_path, way):
    data = small_dataset.train
    images = data.take_images(np.arange(700)), data.read_labels()
    more = {"alpha": 0.1} if "attack" in way else {}
    honest = gs.compute_signs(linear_digits, images, tmp_path / "honest.zarr", name="digits", **way, **more)
    assert gs.audit(honest, data, linear_digits, rows=50, seed=0).honest
    labels = honest.load_labels()
    labels[[3, 690]] = 200, 10
    forged = relabelled(honest, labels, tmp_path)
    found = gs.audit(forged, data, linear_digits, rows=700, seed=0)
    assert (found.honest, found.labels_wrong.tolist()) == (False, [3, 690])
    assert found.sample.agreement[[3, 690]].tolist() == [0, 0]
    assert not gs.audit(relabelled(honest, labels * 0 + 200, tmp_path), data, linear_digits, rows=5).honest


def relabelled(store, labels, folder):
    """A store with the same signs for other labels, whose digests are right."""
    builder = StoreBuilder(folder / "building", store.manifest.spec)
    builder.create()
    for shard in builder.missing():
        rows = builder.layout.shard_rows(shard)
        builder.write_shard(shard, store.read(rows.start, rows.stop), labels[rows])
    builder.publish(folder / "forged.zarr")
    shutil.rmtree(folder / "building")
    return gs.open_signs(folder / "forged.zarr")


def test_an_audit_runs_the_code_that_a_store_names_only_if_the_caller_names_it(
    small_dataset, linear_digits, tmp_path, monkeypatch
):
    (tmp_path / "brightening.py").write_text(
        "def brighter(model, images, labels, epsilon):\n    return (images + epsilon).clamp(0, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data, called = small_dataset.train, "brightening:brighter"
    images = (torch.from_numpy(data.take_images(np.arange(700))).float() / 255, data.read_labels())
    store = gs.compute_signs(linear_digits, images, tmp_path / "B.zarr", attack=called, epsilon=0.3)
    for named in (None, "brightening:darker"):
        with pytest.raises(gs.GradshardError, match=rf"its attack is {called}: if you trust .*, give attack {called}"):
            gs.audit(store, data, linear_digits, rows=20, attack=named)
    assert gs.audit(store, data, linear_digits, rows=20, attack=called).honest


@pytest.fixture
def of_arrays(linear_digits, digits, tmp_path, monkeypatch):
    """A store of arrays, and the arrays."""
    monkeypatch.chdir(tmp_path)
    images, labels = (part[:80] for part in digits["train"])
    return gs.compute_signs(linear_digits, (images, labels), "signs/mine.zarr"), images, labels


def test_a_store_is_audited_with_the_dataset_that_it_was_computed_from_in_any_form(of_arrays, linear_digits):
    store, images, labels = of_arrays
    floats = torch.from_numpy(images).float() / 255
    pairs = TensorDataset(floats, torch.from_numpy(labels.astype(np.int64)))
    mappings = [{"picture": image, "digit": int(label)} for image, label in zip(images, labels, strict=True)]
    assert gs.audit(store, (images, labels), linear_digits).honest
    assert gs.audit(store, (floats, labels), linear_digits).honest
    assert gs.audit(store, pairs, linear_digits).honest
    assert gs.audit(store, mappings, linear_digits, columns=("picture", "digit")).honest
    upside_down = [(image.flip(1), label) for image, label in pairs]
    assert gs.audit(store, upside_down, linear_digits, transform=lambda image: image.flip(1)).honest


def test_a_store_of_a_model_that_normalises_outside_is_audited_as_it_was_computed(of_arrays, linear_digits):
    _, images, labels = of_arrays
    told = {"mean": [0.1307], "std": [0.3081], "output": lambda found: found["scores"]}

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = linear_digits

        def forward(self, images):
            return {"scores": self.model(images)}

    model = Named().eval()
    store = gs.compute_signs(model, (images, labels), "signs/normal.zarr", **told)
    assert gs.audit(store, (images, labels), model, **told).honest


def test_other_rows_than_those_of_a_store_are_refused_by_the_first_that_differs(of_arrays, linear_digits):
    store, images, labels = of_arrays
    changed = images.copy()
    changed[7] = images[8]
    for dataset, sentence in (
        ((images[:70], labels[:70]), "made for the 80 rows of dataset .*, but the dataset has 70"),
        ((images[:, :, :27], labels), r"images of \(1, 28, 28\) .* but the dataset's are of \(1, 27, 28\)"),
        ((changed, labels), "the dataset is another: row 7 has other pixels or labels"),
    ):
        with pytest.raises(gs.GradshardError, match=sentence):
            gs.audit(store, dataset, linear_digits)


@pytest.mark.parametrize("given", [5, "data/mnist5k.zarr", {"x": 1}, iter([])], ids=lambda given: type(given).__name__)
def test_what_is_no_dataset_is_told_with_what_to_give(of_arrays, linear_digits, given):
    with pytest.raises(gs.GradshardError, match=r"pair of arrays \(images, labels\); of open_dataset take .train"):
        gs.audit(of_arrays[0], given, linear_digits)


def test_a_whole_dataset_in_place_of_a_split_is_told_to_be_one(of_arrays, linear_digits, small_dataset):
    with pytest.raises(gs.GradshardError, match=r"Dataset is no dataset whose rows .* take \.train or \.test"):
        gs.audit(of_arrays[0], small_dataset, linear_digits)


def test_a_printed_audit_is_the_verdict_and_what_it_rests_on(of_arrays, linear_digits):
    store, images, labels = of_arrays
    text = str(gs.audit(store, (images, labels), linear_digits, rows=30)).splitlines()
    assert len(text) == 2
    assert text[0].endswith("mine.zarr is honest as far as these rows show")
    assert re.fullmatch(
        r"30 random rows and \d+ critical ones computed again: \d+\.\d{4}% of the signs agree, mean gain "
        r"\d\.\d{6}, 0 bad rows; 80 labels checked, 0 wrong",
        text[1],
    )
    torch.manual_seed(1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    assert "mine.zarr is not what it says" in str(gs.audit(store, (images, labels), other))


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ([nn.Linear(784, 2)], "the model has 2 logits, but that of .*mine.zarr had 10: give the one"),
        ([nn.Linear(100, 10)], r"the model does not take images of shape \(1, 28, 28\)"),
        ([nn.Linear(784, 10).double()], r"has parameters of torch.float64, so call its float\(\) first"),
        ([nn.Linear(784, 10), nn.Softmax(1)], "the model gives probabilities"),
    ],
    ids=["classes", "image size", "double", "softmax"],
)
def test_a_model_that_the_store_cannot_be_of_is_told_by_what_differs(of_arrays, layers, told):
    store, images, labels = of_arrays
    with pytest.raises(gs.GradshardError, match=told):
        gs.audit(store, (images, labels), nn.Sequential(nn.Flatten(), *layers).eval())


@pytest.mark.parametrize("way", [{}, {"attack": "ifgsm", "epsilon": 0.1, "steps": 3}], ids=["gradient", "attack"])
def test_signs_that_attack_nobody_are_no_store_unless_they_may_be(linear_digits, small_dataset, tmp_path, way):
    data = small_dataset.train
    images, labels = data.take_images(np.arange(700)), data.read_labels()
    torch.nn.init.normal_(linear_digits[1].weight, std=1000)  # so sure that the softmax rounds to 0 and 1
    with pytest.raises(gs.GradshardError, match=r"0 in every pixel for \d+ of 700 images .* or set zero_rows="):
        gs.compute_signs(linear_digits, (images, labels), tmp_path / "s.zarr", gradient="cross_entropy", **way)
    assert not (tmp_path / "s.zarr").exists()
    store = gs.compute_signs(
        linear_digits, (images, labels), tmp_path / "s.zarr", gradient="cross_entropy", zero_rows=1, **way
    )
    assert re.search(r"; \d+ of these rows have no sign and attack nobody", str(gs.audit(store, data, linear_digits)))
    with pytest.raises(gs.GradshardError, match="zero_rows is 2, but must be a share"):
        gs.compute_signs(linear_digits, (images, labels), tmp_path / "t.zarr", zero_rows=2)


def test_a_model_in_train_mode_is_not_audited(of_arrays, linear_digits):
    store, images, labels = of_arrays
    with pytest.raises(gs.GradshardError, match=r"is in train mode, .*: call model.eval\(\) first"):
        gs.audit(store, (images, labels), linear_digits.train())


@pytest.fixture
def linear_digits():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
