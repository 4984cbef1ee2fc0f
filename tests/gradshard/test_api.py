"""``import gradshard``: few names, typed, imported when they are used; wrong use told in one sentence."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import gradshard as gs
from gradshard.attacks import count_classes
from gradshard.pipeline.attacks.crafting import craft_by_name, sample_noise
from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.formats.sign_writer import StoreBuilder
from tests.helpers.stores import random_signs

STUB = Path(gs.__file__).with_name("__init__.pyi")
ATTACKS = {
    "fgsm": gs.fgsm,
    "ifgsm": gs.iterative_fgsm,
    "rand_fgsm": gs.rand_fgsm,
    "mifgsm": gs.mi_fgsm,
    "pgd": gs.pgd,
    "cw": gs.cw,
}


def test_what_is_public_is_listed_in_40_lines_and_explained():
    text, page = STUB.read_text(), (Path(gs.__file__).parents[1] / "docs/api.md").read_text()
    assert len(text.splitlines()) <= 40
    assert sorted(gs.__all__) == sorted(set(gs.__all__))
    for name in gs.__all__:
        assert getattr(gs, name) is not None
        assert f"`{name}" in page, name


def test_importing_it_imports_nothing_heavy():
    code = "import gradshard, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "zarr", "pydantic", "click"} & set(loaded)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 1, 3, 4, generator=generator), torch.randint(0, 5, (6,), generator=generator)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_that_of_the_stage_evaluate(linear_model, batch, name):
    images, labels = batch
    model = linear_model(classes=5)
    noise = sample_noise(images.shape, 2, generator=torch.Generator().manual_seed(7))
    config = AttackConfig(0.2, 0.1, 3, 3, 2)
    expected = craft_by_name(name, model, images, labels, strength=config, draws=noise)
    crafted = ATTACKS[name](model, images, labels, epsilon=0.2, steps=3, restarts=2, seed=7)
    assert torch.equal(crafted, expected)
    assert not torch.equal(crafted, images)


def test_images_that_are_no_pixels_are_refused(linear_model, batch):
    images, labels = batch
    with pytest.raises(gs.GradshardError, match=r"not float pixels in \[0, 1\]: divide them by 255"):
        gs.fgsm(linear_model(), (images * 255).byte(), labels, epsilon=0.1)
    with pytest.raises(gs.GradshardError, match=r"images are a ndarray, not a tensor: .* torch\.from_numpy\(images\)"):
        gs.fgsm(linear_model(), images.numpy(), labels, epsilon=0.1)
    with pytest.raises(gs.GradshardError, match=r"pixels run from .* normalise inside the model"):
        gs.pgd(linear_model(), images * 4 - 2, labels, epsilon=0.1)
    with pytest.raises(gs.GradshardError, match="pixels run from nan"):
        gs.fgsm(linear_model(), images * float("nan"), labels, epsilon=0.1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"epsilon": 8}, "epsilon is 8, no distance of pixels"),
        ({"epsilon": -0.1}, "epsilon is -0.1, no distance of pixels"),
        ({"epsilon": float("nan")}, "epsilon is nan, no distance of pixels"),
        ({"alpha": 0.5}, "alpha is 0.5, but the random step is a part of epsilon, 0.1"),
        ({"steps": 0}, "steps is 0, by which nothing is attacked"),
        ({"restarts": 0}, "restarts is 0, by which nothing is attacked"),
        ({"gradient": "exakt"}, "gradient is exakt: choose exact or cross_entropy"),
    ],
)
def test_strength_and_gradient_that_no_attack_has_are_refused(linear_model, batch, wrong, sentence):
    model, asked = linear_model(classes=5).eval(), {"epsilon": 0.1, **wrong}
    for attacked in (
        lambda: gs.pgd(model, *batch, **asked),
        lambda: gs.evaluate({"m": model}, *batch, attacks=["pgd"], **asked),
        lambda: gs.examine(model, *batch, **asked),
    ):
        with pytest.raises(gs.GradshardError, match=sentence):
            attacked()


@pytest.mark.parametrize("label", ["random", "least-likely"])
def test_a_label_that_no_attack_is_about_is_refused_and_not_taken_for_the_true_one(linear_model, batch, label):
    model = linear_model(classes=5).eval()
    with pytest.raises(gs.GradshardError, match=f"label is {label}: choose true or least_likely"):
        gs.fgsm(model, *batch, epsilon=0.1, label=label)
    with pytest.raises(gs.GradshardError, match=f"label is {label}: choose true or least_likely"):
        gs.evaluate({"m": model}, *batch, attacks=["fgsm"], epsilon=0.1, label=label)


def test_an_attack_that_no_evaluation_turns_to_a_target_leaves_the_label_alone(linear_model, batch):
    model = linear_model(classes=5).eval()
    for attack in (gs.mi_fgsm, gs.pgd, gs.cw):
        away, asked = (attack(model, *batch, epsilon=0.1, steps=2, label=label) for label in ("true", "least_likely"))
        assert torch.equal(away, asked)
    away, towards = (gs.fgsm(model, *batch, epsilon=0.1, label=label) for label in ("true", "least_likely"))
    assert not torch.equal(away, towards)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (torch.tensor([1]), r"labels are torch.int64 \(1,\): give .* int64 \(6,\)"),
        (torch.zeros(9, dtype=torch.int64), r"labels are torch.int64 \(9,\): give .* int64 \(6,\)"),
        (torch.zeros(6, 1, dtype=torch.int64), r"labels are torch.int64 \(6, 1\): give"),
        (torch.zeros(6), r"labels are torch.float32 \(6,\): give"),
        (np.zeros(6, dtype=np.int64), r"labels are a ndarray: give"),
        (torch.tensor([0, 1, 2, 3, 4, -1]), "labels run from -1 to 4: give numbers of classes, from 0"),
    ],
)
def test_labels_that_are_not_those_of_the_images_are_refused(linear_model, batch, labels, sentence):
    model, images = linear_model(classes=5).eval(), batch[0]
    for attacked in (
        lambda: gs.fgsm(model, images, labels, epsilon=0.1),
        lambda: gs.evaluate({"m": model}, images, labels, attacks=["fgsm"], epsilon=0.1),
        lambda: gs.examine(model, images, labels, epsilon=0.1),
    ):
        with pytest.raises(gs.GradshardError, match=sentence):
            attacked()


def test_labels_beyond_the_classes_are_refused(linear_model, batch):
    model, labels = linear_model(classes=5).eval(), torch.tensor([1, 2, 3, 4, 5, 1])
    with pytest.raises(gs.GradshardError, match="labels run from 1 to 5: give numbers of classes, from 0 to 4"):
        gs.fgsm(model, batch[0], labels, epsilon=0.1)
    with pytest.raises(gs.GradshardError, match="labels run from 1 to 5: give numbers of classes, from 0 to 4"):
        gs.evaluate({"m": model}, batch[0], labels, attacks=["fgsm"], epsilon=0.1)
    with pytest.raises(gs.GradshardError, match="labels run from 1 to 5: give numbers of classes, from 0 to 4"):
        gs.examine(model, batch[0], labels, epsilon=0.1)


class WithSomethingBeside(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images), None


class WithoutSlopeAtBlack(WithSomethingBeside):
    def forward(self, images):
        return self.model(images) + images.flatten(1).square().sum(1, keepdim=True).sqrt()


def attacks_of(model, images, labels):
    yield lambda: gs.fgsm(model, images, labels, epsilon=0.1)
    yield lambda: gs.evaluate({"the model": model}, images, labels, attacks=["fgsm"], epsilon=0.1)
    yield lambda: gs.examine(model, images, labels, epsilon=0.1)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            lambda model, images: (WithSomethingBeside(model).eval(), images),
            r"the model gives a tuple .* its logits alone",
        ),
        (lambda model, images: (model.forward, images), r"is a method, not a torch\.nn\.Module: call it in a module"),
        (
            lambda model, images: (nn.Flatten(0).eval(), images),
            r"the model gives shape \(12,\) for one image and not logits",
        ),
        (lambda model, images: (model, images.expand(6, 3, 3, 4)), r"does not take images that are float32 of shape"),
        (lambda model, images: (model, images.double()), "does not take images that are float64 of shape .*: give it"),
    ],
)
def test_a_model_that_gives_no_logits_for_the_images_is_refused_in_one_sentence(linear_model, batch, changed, sentence):
    model, images = changed(linear_model(classes=5).eval(), batch[0])
    for attacked in attacks_of(model, images, batch[1]):
        with pytest.raises(gs.GradshardError, match=sentence) as told:
            attacked()
        assert "\n" not in str(told.value)


def test_a_model_whose_gradient_is_undefined_somewhere_is_not_taken_for_one_that_resists(linear_model, batch):
    images = batch[0].clone()
    images[[1, 4]] = 0
    model = WithoutSlopeAtBlack(linear_model(classes=5)).eval()
    sentence = "the input gradient of the model is NaN or infinite for 2 of the 6 images .*: mend the model"
    by_itself, evaluated, _ = attacks_of(model, images, batch[1])
    for attacked in (by_itself, evaluated):
        with pytest.raises(gs.GradshardError, match=sentence):
            attacked()


def test_looking_at_a_model_before_an_attack_leaves_its_mode_its_statistics_and_the_generator(batch):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 5), nn.Dropout(0.5)).train()
    model[3].eval()
    before, state = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    count = count_classes(model, batch[0])
    assert count == 5
    assert [module.training for module in model] == [True, True, True, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_without_images_or_targets_there_is_nothing_to_evaluate(linear_model, batch):
    model, (images, labels) = linear_model(classes=5).eval(), batch
    with pytest.raises(gs.GradshardError, match=r"no pixel in images of shape \(0, 1, 3, 4\): give one image"):
        gs.evaluate({"m": model}, images[:0], labels[:0], attacks=["fgsm"], epsilon=0.1)
    with pytest.raises(gs.GradshardError, match="there are no targets: name one model"):
        gs.evaluate({}, images, labels, attacks=["fgsm"], epsilon=0.1)


def test_a_model_without_parameters_is_evaluated_where_the_images_are(batch):
    class Sums(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :5]

    clean, _ = gs.evaluate({"m": Sums().eval()}, *batch, attacks=["fgsm"], epsilon=0.1)
    assert clean.correct.tolist() == (batch[0].flatten(1)[:, :5].argmax(1) == batch[1]).tolist()


def test_an_error_is_that_of_the_crafted_images(linear_model, batch):
    images, labels = batch
    models = {"one": linear_model(classes=5).eval(), "other": linear_model(classes=5, seed=1).eval()}
    results = gs.evaluate(models, images, labels, attacks=["fgsm"], epsilon=0.2)
    assert [(r.target, r.source, r.attack) for r in results[:2]] == [("one", "", "clean"), ("other", "", "clean")]
    assert len(results) == 2 + 4
    for result in results[2:]:
        examples = gs.fgsm(models[result.source], images, labels, epsilon=0.2)
        right = models[result.target](examples).argmax(1) == labels
        assert result.correct.tolist() == right.tolist()
        assert result.error.errors == int((~right).sum())


def test_sources_may_be_others_than_the_targets(linear_model, batch):
    target, source = linear_model(classes=5).eval(), linear_model(classes=5, seed=1).eval()
    results = gs.evaluate({"t": target}, *batch, attacks=["fgsm", "pgd"], epsilon=0.1, sources={"s": source}, steps=2)
    assert [(r.target, r.source, r.attack) for r in results] == [
        ("t", "", "clean"),
        ("t", "s", "fgsm"),
        ("t", "s", "pgd"),
    ]


def test_an_unknown_attack_is_told_with_those_that_there_are(linear_model, batch):
    with pytest.raises(gs.GradshardError, match="there is no attack deepfool: there are fgsm, ifgsm"):
        gs.evaluate({"m": linear_model(classes=5).eval()}, *batch, attacks=["deepfool"], epsilon=0.1)


def test_an_attack_of_a_library_is_evaluated_by_the_name_that_compute_signs_knows(linear_model, batch):
    torchattacks = pytest.importorskip("torchattacks")
    model, (images, labels), named = linear_model(classes=5).eval(), batch, "torchattacks:MIFGSM"
    arguments = {named: {"steps": 3, "alpha": 0.05}}
    found = gs.evaluate({"m": model}, images, labels, attacks=["fgsm", named], epsilon=0.1, arguments=arguments)
    examples = torchattacks.MIFGSM(model, eps=0.1, steps=3, alpha=0.05)(images, labels)
    assert [result.attack for result in found] == ["clean", "fgsm", named]
    assert found[2].correct.tolist() == (model(examples).argmax(1) == labels).tolist()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"attacks": ["MIFGSM"]}, r"there is no attack MIFGSM \(did you mean mifgsm\?\): there are fgsm"),
        (
            {"attacks": ["torchattacks:CW"]},
            r"\(torchattacks:CW\): it takes no eps, but stores and errors are of moves",
        ),
        ({"attacks": ["fgsm"], "arguments": {"pgd": {"steps": 3}}}, "arguments are given of pgd, but they are for"),
    ],
)
def test_an_attack_that_cannot_be_evaluated_is_refused(linear_model, batch, asked, sentence):
    with pytest.raises(gs.GradshardError, match=sentence):
        gs.evaluate({"m": linear_model(classes=5).eval()}, *batch, epsilon=0.1, **asked)


def test_a_model_in_training_mode_is_not_evaluated(linear_model, batch):
    with pytest.raises(gs.GradshardError, match=r"m is in training mode: call its eval\(\) first"):
        gs.evaluate({"m": linear_model(classes=5).train()}, *batch, attacks=["fgsm"], epsilon=0.1)


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


def test_a_model_in_train_mode_is_not_audited(of_arrays, linear_digits):
    store, images, labels = of_arrays
    with pytest.raises(gs.GradshardError, match=r"is in train mode, .*: call model.eval\(\) first"):
        gs.audit(store, (images, labels), linear_digits.train())


@pytest.fixture
def linear_digits():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()


def test_a_model_of_somebodys_own_code_is_not_built(small_dataset, tmp_path):
    from gradshard.storage.formats import checkpoints

    checkpoints.save(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {"architecture": "os.path:join"})
    with pytest.raises(gs.GradshardError, match="whose code is not run here: build it yourself"):
        gs.load_model(tmp_path / "w.safetensors", small_dataset)


def test_a_model_that_gives_probabilities_comes_back_as_their_logarithm(small_dataset, tmp_path):
    from gradshard.pipeline import models
    from gradshard.storage.formats import checkpoints

    kept = models.create_model("D", (1, 28, 28), 10, seed=0, output="probabilities").eval()
    checkpoints.save(tmp_path / "P.safetensors", kept.state_dict(), {"architecture": "D", "output": "probabilities"})
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    loaded = gs.load_model(tmp_path / "P.safetensors", small_dataset)
    assert torch.equal(loaded(images), kept(images))
