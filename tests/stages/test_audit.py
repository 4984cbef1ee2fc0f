"""`store audit` on real models: every kind of forgery is noticed, no honest store is accused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gradshard.pipeline.audit.recompute import detection_probability
from gradshard.pipeline.audit.store import audit_store, plan_audit
from gradshard.pipeline.gradients.signs import GradientSpec, compute_signs
from gradshard.stages.store.origin import open_origin
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.sign_writer import StoreBuilder
from tests.helpers.projects import call


@pytest.fixture(scope="module")
def audited(finished_project, tmp_path_factory):
    """A store of the finished project, what it was made from, and its decoded content."""
    folder = finished_project.path
    store = open_store(folder / "signs/A.zarr")
    weights, dataset = folder / "models/static/A.safetensors", folder / "data/npz.zarr"
    origin = open_origin(store.manifest, weights, dataset, None, "cpu", where="A")
    signs = bitplanes.unpack(store.load(), 784)
    return store, origin, signs, store.load_labels()


def run_audit(store, origin, *, count, seed):
    plan = plan_audit(store, origin.split, count=count, seed=seed)
    return audit_store(plan, store, origin.split, origin.model.module)


@pytest.fixture
def forge(audited, tmp_path):
    """Publish other signs or labels as if they were the store's: every digest is right."""
    store, *_ = audited

    def build(signs, labels, **direction):
        spec = store.manifest.spec
        spec = spec.model_copy(update={"direction": spec.direction.model_copy(update=direction)})
        builder = StoreBuilder(tmp_path / "building", spec)
        builder.create()
        for shard in builder.missing():
            rows = builder.layout.shard_rows(shard)
            builder.write_shard(shard, bitplanes.pack(signs[rows]), labels[rows])
        builder.publish(tmp_path / "A.zarr")
        shutil.rmtree(tmp_path / "building")
        return open_store(tmp_path / "A.zarr")

    return build


def recomputed(origin, labels, *, precision="fp32", gradient="exact", model=None):
    """The signs of every row for given labels, in another arithmetic."""
    module = origin.model.module if model is None else model
    images = torch.from_numpy(origin.split.read_images(0, len(origin.split)))
    direction = GradientSpec(gradient, "true", precision)
    signs, _ = compute_signs(module, images, torch.from_numpy(labels), direction)
    return signs.numpy()


def test_an_honest_store_passes_and_its_agreement_is_told(audited):
    store, origin, _, _ = audited
    result = run_audit(store, origin, count=200, seed=0)
    assert result.honest
    assert result.sample.agreement.mean() == 1
    assert len(result.sample.rows) == len(np.unique(result.sample.rows)) == 200
    assert result.labels_checked == len(store)


def test_an_honest_store_in_bf16_passes(audited, forge):
    _, origin, _, labels = audited
    made = forge(recomputed(origin, labels, precision="bf16"), labels, dtype="bfloat16")
    for seed in range(5):
        result = run_audit(made, origin, count=200, seed=seed)
        assert result.honest
        assert 0.95 < result.sample.agreement.mean() < 1


def test_an_honest_store_of_another_machine_passes(audited, forge):
    """Another order of summation, as another CPU or a GPU has it: computed in float64, the furthest there is."""
    _, origin, _, labels = audited
    module = origin.model.module.double()
    images = torch.from_numpy(origin.split.read_images(0, len(origin.split))).double() / 255
    images.requires_grad_(True)
    logits = module(images)
    right = logits.gather(1, torch.from_numpy(labels).unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, torch.from_numpy(labels).unsqueeze(1), -torch.inf).logsumexp(1)
    (grad,) = torch.autograd.grad((others - right).sum(), images)
    module.float()
    made = forge(grad.sign().to(torch.int8).flatten(1).numpy(), labels)
    result = run_audit(made, origin, count=200, seed=0)
    assert result.honest
    assert result.sample.agreement.mean() > 0.993


def test_an_honest_store_of_cross_entropy_passes_and_single_rows_are_not_judged(audited, forge):
    store, origin, _, labels = audited
    made = forge(recomputed(origin, labels, gradient="cross_entropy"), labels, gradient="cross_entropy")
    other = open_origin(made.manifest, *paths_of(store), None, "cpu", where="A")
    result = run_audit(made, other, count=200, seed=0)
    assert result.honest
    assert result.limits.gain == -np.inf


def paths_of(store):
    folder = Path(store.where).parents[1]
    return folder / "models/static/A.safetensors", folder / "data/npz.zarr"


def other_model(finished_project):
    return bitplanes.unpack(open_store(finished_project.path / "signs/C.zarr").load(), 784)


FORGERIES = {
    "signs of another model": lambda signs, labels, project: (other_model(project), labels),
    "shuffled rows": lambda signs, labels, project: (np.roll(signs, 1, axis=0), labels),
    "rows of another order, labels with them": lambda signs, labels, project: (
        np.roll(signs, 1, axis=0),
        np.roll(labels, 1),
    ),
    "flipped rows": lambda signs, labels, project: (-signs, labels),
    "mirrored images": lambda signs, labels, project: (signs.reshape(-1, 28, 28)[:, :, ::-1].reshape(-1, 784), labels),
    "all zero": lambda signs, labels, project: (np.zeros_like(signs), labels),
    "random signs": lambda signs, labels, project: (np.sign(np.random.default_rng(0).normal(size=signs.shape)), labels),
}


@pytest.mark.parametrize("forgery", list(FORGERIES))
def test_a_forged_store_is_noticed_by_its_signs(audited, forge, finished_project, forgery):
    _, origin, signs, labels = audited
    made = forge(*(np.ascontiguousarray(part) for part in FORGERIES[forgery](signs, labels, finished_project)))
    result = run_audit(made, origin, count=200, seed=0)
    assert not result.honest
    assert len(result.sample.bad(result.limits)) > 150


@pytest.mark.parametrize("labels_too", [True, False])
def test_true_labels_where_predicted_ones_are_promised_are_noticed(audited, forge, labels_too):
    """They differ for the few rows that the model gets wrong; twenty random rows alone would often miss them."""
    _, origin, signs, predicted = audited
    true = origin.split.read_labels()
    wrong = np.flatnonzero(true != predicted)[:6]
    labels = predicted.copy()
    labels[wrong] = true[wrong]
    for_true = signs.copy()
    for_true[wrong] = recomputed(origin, labels)[wrong]
    made = forge(for_true, labels if labels_too else predicted)
    honest_elsewhere = np.setdiff1d(np.arange(len(made)), wrong)
    result = run_audit(made, origin, count=200, seed=1)
    assert not result.honest
    found = result.labels_wrong if labels_too else result.bad
    assert len(found)
    assert not np.intersect1d(found, honest_elsewhere).size


@pytest.mark.parametrize(("count", "seeds"), [(20, 200), (200, 20)])
def test_five_percent_of_forged_rows_are_noticed_as_often_as_stated(audited, forge, count, seeds):
    _, origin, signs, labels = audited
    bad = np.random.default_rng(5).choice(len(signs), round(0.05 * len(signs)), replace=False)
    signs = signs.copy()
    signs[bad] = np.roll(signs, 7, axis=0)[bad]
    made = forge(signs, labels)
    whole = run_audit(made, origin, count=len(made), seed=0)
    # One comparison of all rows, from which each audit takes its own: the choice of rows is what is tested.
    forged = np.isin(np.arange(len(made)), whole.bad)
    assert abs(forged.sum() - len(bad)) <= 2
    noticed = 0
    for seed in range(seeds):
        rows = np.random.default_rng(seed).permutation(len(made))[:count]
        noticed += bool(forged[rows].any())
    stated = detection_probability(len(made), count, int(forged.sum()))
    assert abs(noticed - stated * seeds) <= 3 * np.sqrt(stated * (1 - stated) * seeds) + 1
    for seed in range(3):
        rows = np.sort(np.random.default_rng(seed).permutation(len(made))[:count])
        result = run_audit(made, origin, count=count, seed=seed)
        assert result.sample.rows.tolist() == rows.tolist()
        assert set(rows[forged[rows]]) <= set(result.bad.tolist())


def test_the_command_tells_its_verdict_and_exits_by_it(copied_project, audited, forge, gradshard):
    _, _, signs, labels = audited
    forged = forge(-signs, labels)
    options = ("--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr", "--rows", "50", "--json")
    for place, code in (("signs/A.zarr", 0), (forged.where, 1)):
        assert gradshard(copied_project, "store", "audit", place, *options, "--seed", "3")[0] == code


def test_the_result_as_json_names_rows_and_chances(copied_project, monkeypatch, capsys):
    monkeypatch.chdir(copied_project.path)
    options = ("--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr", "--rows", "50", "--json")
    assert call(monkeypatch, "store", "audit", "signs/A.zarr", *options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["honest"] is True
    assert told["rows"] == 50
    assert told["mean_agreement"] == 1
    assert told["bad_rows"] == told["wrong_labels"] == []
    assert told["detection"]["0.05"] == pytest.approx(detection_probability(600, 50, 30))
    assert len(told["worst"]) == 5
    again = ("store", "audit", "signs/A.zarr", *options, "--seed", str(told["seed"]))
    assert call(monkeypatch, *again) == 0
    assert json.loads(capsys.readouterr().out) == told


def test_labels_that_are_no_class_are_a_verdict_and_not_measured_with(
    copied_project, audited, forge, gradshard, capsys
):
    _, _, signs, labels = audited
    forged = forge(signs, np.where(np.arange(len(labels)) == 7, 200, labels)).where
    origin = ("--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr")
    assert gradshard(copied_project, "store", "audit", forged, *origin, "--rows", "50", "--json")[0] == 1
    target = ("--target", "models/static/C.safetensors", "--eps", "0.3")
    for command in (("views", forged), ("fidelity", forged, *target)):
        code, said = gradshard(copied_project, "store", *command, *origin, "--rows", "20")
        assert code == 2
        assert "A.zarr: row 7 is stored for the label 200, but npz has the classes 0 to 9: see by `gradshard" in said


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--model", "models/static/C.safetensors", "was made from model"),
        ("--model", "models/static/none.safetensors", "no weights at"),
        ("--dataset", "data/none.zarr", "no dataset at"),
    ],
)
def test_the_wrong_model_or_dataset_is_told(copied_project, gradshard, option, value, sentence):
    options = {"--model": "models/static/A.safetensors", "--dataset": "data/npz.zarr"} | {option: value}
    code, said = gradshard(copied_project, "store", "audit", "signs/A.zarr", *(t for o in options.items() for t in o))
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1
