"""Stores of attacks, from parameters to audit: the same as live, whatever is killed, forged or mended."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gradshard.pipeline.attacks.end_direction import end_directions, to_signs
from gradshard.pipeline.attacks.fgsm import rand_fgsm
from gradshard.pipeline.audit.store import audit_store, plan_audit
from gradshard.pipeline.config.direction import direction_of
from gradshard.pipeline.config.signs import SignsParams
from gradshard.pipeline.gradients.random_step import random_step, step_along
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.stages.jobs.compute_rows import compute_rows
from gradshard.stages.jobs.models import LoadedModel
from gradshard.stages.jobs.sign_stores import store_spec
from gradshard.stages.jobs.stored_attacks import check_promised, tell_of_other_epsilons
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.sign_writer import StoreBuilder
from tests.helpers.projects import call
from tests.helpers.trained import train_on

CPU = torch.device("cpu")
KINDS = {
    "fgsm": {"attack": "fgsm"},
    "rand_fgsm": {"attack": "rand_fgsm", "eps": 0.3, "alpha": 0.05, "copies": 2, "seed": 4},
    "mifgsm": {"attack": "mifgsm", "eps": 0.3, "steps": 3},
    "pgd": {"attack": "pgd", "eps": 0.3, "steps": 4, "copies": 2},
    "random targets": {"attack": "ifgsm", "eps": 0.3, "steps": 3, "label": "random"},
    "mifgsm to random targets": {"attack": "mifgsm", "eps": 0.3, "steps": 3, "label": "random"},
    "pgd to the least likely": {"attack": "pgd", "eps": 0.3, "steps": 4, "label": "least_likely", "copies": 2},
}


@pytest.fixture(scope="module")
def model(digits):
    return LoadedModel(train_on(digits, "D", seed=1), "D", "0" * 64, "0" * 64)


@pytest.fixture(scope="module")
def other(digits):
    return LoadedModel(train_on(digits, "D", seed=2), "D", "0" * 64, "0" * 64)


def wanted_by(kind, **more):
    return SignsParams(**{"model": "D", "label": "predicted", **KINDS[kind], **more})


@pytest.fixture(scope="module")
def split(tmp_path_factory, digits):
    path = tmp_path_factory.mktemp("data") / "digits.zarr"
    parts = {"train": tuple(part[:192] for part in digits["train"]), "test": tuple(part[:8] for part in digits["test"])}
    assert sum(write_dataset(path, name="digits", classes=10, splits=parts)) == 200
    return open_dataset(path).train


@pytest.fixture(scope="module")
def honest(model, split):
    """Give the packed signs and the labels of all rows, of each kind of store, computed once."""
    whole = slice(0, len(split))
    return functools.cache(lambda kind: compute_rows(model, split, whole, direction_of(wanted_by(kind), "D"), CPU))


def published(folder, model, split, kind, planes, labels, **more):
    """Publish a store of an attack that holds these signs, honest or not: every digest is right."""
    params = wanted_by(kind, **more)
    builder = StoreBuilder(folder / "building", store_spec(params, model, split, direction_of(params, "D"), CPU))
    builder.create()
    for shard in builder.missing():
        rows = builder.layout.shard_rows(shard)
        builder.write_shard(shard, planes[:, rows], labels[rows])
    builder.publish(folder / "D.zarr")
    return open_store(folder / "D.zarr")


def audited(store, split, model, *, count=60):
    return audit_store(plan_audit(store, split, count=count, seed=0), store, split, model.module)


def test_a_batch_from_a_store_of_rand_fgsm_is_the_live_attack_bit_for_bit(tmp_path, model, split, honest):
    store = published(tmp_path, model, split, "rand_fgsm", *honest("rand_fgsm"))
    # The store's first microbatch, so that no last bit of a gradient depends on the batch.
    rows = np.arange(128)
    images = to_unit_range(torch.from_numpy(split.take_images(rows)))
    labels = torch.from_numpy(store.load_labels()[rows])
    found = []
    for copy in range(2):
        signs = torch.from_numpy(bitplanes.unpack(store.of_copy(copy).read(0, 128), 784)).view_as(images)
        step = random_step(store.of_copy(copy))
        noise = step.noise(images.shape, rows, CPU)
        live = rand_fgsm(model.module, images, labels, epsilon=0.3, alpha=0.05, noise=noise)
        assert torch.equal(step_along(images, signs, 0.3, step=step, rows=rows), live)
        assert float((live - images).abs().max()) <= 0.3 + 1e-6
        found.append(live)
    assert not torch.equal(*found)


def test_random_starts_follow_from_the_row_and_not_from_the_batch(model, split, honest):
    planes, _ = honest("pgd")
    again, _ = compute_rows(model, split, slice(100, 170), direction_of(wanted_by("pgd"), "D"), CPU)
    # Of one row or two, rounding may decide a step.
    assert np.bitwise_count(planes[:, 100:170] ^ again).mean() / 8 < 0.005
    assert np.bitwise_count(planes[0] ^ planes[1]).mean() / 8 > 0.01


def test_a_seeded_attack_gives_a_row_the_same_signs_wherever_shards_begin(model, split):
    wanted = {"attack": "torchattacks:DIFGSM", "eps": 0.3, "arguments": {"steps": 2, "alpha": 0.2, "resize_rate": 0.9}}
    spec = direction_of(SignsParams(model="D", label="predicted", **wanted), "D")
    planes, _ = compute_rows(model, split, slice(0, 64), spec, CPU)
    again, _ = compute_rows(model, split, slice(20, 50), spec, CPU)
    assert np.array_equal(planes[:, 20:50], again)


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_store_passes_its_audit(tmp_path, model, split, honest, kind):
    result = audited(published(tmp_path, model, split, kind, *honest(kind)), split, model)
    assert result.honest
    assert result.sample.agreement.mean() > 0.99


@pytest.mark.parametrize("kind", ["mifgsm to random targets", "pgd to the least likely"])
def test_signs_towards_a_target_lead_there(tmp_path, model, split, honest, kind):
    store = published(tmp_path, model, split, kind, *honest(kind))
    images, target = to_unit_range(torch.from_numpy(split.take_images(np.arange(192)))), store.load_labels()
    reached = []
    for copy in store.in_turn:
        signs = torch.from_numpy(bitplanes.unpack(copy.load(), 784)).view_as(images)
        assert store.manifest.direction.step == 1
        reached.append(float((model.module(step_along(images, signs, 0.3)).argmax(1).numpy() == target).mean()))
    clean = float((model.module(images).argmax(1).numpy() == target).mean())
    assert clean < 0.05
    assert min(reached) > 0.3


def of_another_model(planes, kind, other, split):
    return compute_rows(other, split, slice(0, len(split)), direction_of(wanted_by(kind), "D"), CPU)[0]


def of_other_rows(planes, kind, other, split):
    return np.roll(planes, 1, axis=1)


def flipped(planes, kind, other, split, *, share=0.1):
    random = np.random.default_rng(0)
    signs = [bitplanes.unpack(part, 784) for part in planes]
    return np.stack([bitplanes.pack(np.where(random.random(s.shape) < share, -s, s)) for s in signs])


def turned_round(planes, kind, other, split):
    return flipped(planes, kind, other, split, share=1.0)


def with_one_forged_copy(planes, kind, other, split):
    return np.concatenate([planes[:-1], planes[-1:, ::-1]])


@pytest.mark.parametrize("kind", ["rand_fgsm", "mifgsm", "pgd"])
@pytest.mark.parametrize("forge", [of_another_model, of_other_rows, flipped, turned_round, with_one_forged_copy])
def test_a_forged_store_is_refused(tmp_path, model, other, split, honest, kind, forge):
    planes, labels = honest(kind)
    forged = forge(planes, kind, other, split)
    assert not audited(published(tmp_path, model, split, kind, forged, labels), split, model).honest


class Kinked(torch.nn.Module):
    """A loss that rises on both sides of a plane, in which the images lie whose halves are equally bright."""

    across = torch.ones(28, 28).index_fill(1, torch.arange(14, 28), -1)

    def forward(self, images):
        rising = (images.flatten(1) @ self.across.flatten()).abs()
        return torch.stack([torch.zeros_like(rising), rising], 1)


@pytest.mark.parametrize("way", [1, -1])
def test_a_row_that_rounding_leads_elsewhere_is_honest_and_one_that_it_does_not_is_forged(tmp_path, way):
    images = np.random.default_rng(0).integers(256, size=(60, 1, 28, 28), dtype=np.uint8)
    images[7] = 128
    labels = np.zeros(60, dtype=np.int64)
    splits = dict.fromkeys(("train", "test"), (images, labels))
    assert sum(write_dataset(tmp_path / "d.zarr", name="d", classes=2, splits=splits)) == 120
    split = open_dataset(tmp_path / "d.zarr").train
    model = LoadedModel(Kinked().eval(), "D", "0" * 64, "0" * 64)
    kind, spec = "mifgsm", direction_of(wanted_by("mifgsm", label="true"), "D")
    planes, labels = compute_rows(model, split, slice(0, 60), spec, CPU)
    signs = bitplanes.unpack(planes[0], 784)
    for name, row, found in (("tipped", 7, way * Kinked.across.flatten().numpy()), ("forged", 8, -signs[8])):
        changed = signs.copy()
        changed[row] = found
        stored = bitplanes.pack(changed)[None]
        result = audited(published(tmp_path / name, model, split, kind, stored, labels, label="true"), split, model)
        assert (result.honest, list(result.bad)) == ((True, []) if name == "tipped" else (False, [8]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pgd", "pgd to the least likely"])
def test_a_store_in_bf16_passes_its_audit_and_flipped_signs_do_not_pass_for_rounding(
    tmp_path, model, split, honest, kind
):
    spec = direction_of(wanted_by(kind, precision="bf16"), "D")
    rough, labels = compute_rows(model, split, slice(0, len(split)), spec, CPU)
    assert audited(published(tmp_path, model, split, kind, rough, labels, precision="bf16"), split, model).honest
    planes, labels = honest(kind)
    forged = flipped(planes, kind, None, split, share=0.05)
    found = audited(published(tmp_path / "forged", model, split, kind, forged, labels, precision="bf16"), split, model)
    assert not found.honest


@pytest.mark.parametrize("kind", ["mifgsm", "pgd"])
def test_the_gradients_sign_in_place_of_an_attack_of_many_steps_is_refused(tmp_path, model, split, honest, kind):
    planes, labels = honest(kind)
    plain = np.broadcast_to(honest("fgsm")[0], planes.shape)
    assert not audited(published(tmp_path, model, split, kind, plain, labels), split, model).honest


def test_a_sign_is_0_below_the_threshold_of_the_way_a_pixel_could_go(model, split):
    spec, rows = direction_of(wanted_by("mifgsm", label="true"), "D"), np.arange(64)
    images, labels = (torch.from_numpy(part) for part in (split.take_images(rows), split.read_labels()[rows]))
    ends = end_directions(model.module, images, labels, spec, rows=rows, copy=0)
    assert float(ends.abs().max()) <= 1 + 1e-5
    for threshold in (0.25, 0.75):
        signs = to_signs(ends, replace(spec, threshold=threshold)).view_as(ends)
        assert ((signs == 0) == (ends.abs() < threshold - 1e-4)).all()
        assert (signs[signs != 0] == ends.sign()[signs != 0]).all()


def test_an_epsilon_that_the_random_step_uses_up_is_refused(tmp_path, model, split, honest):
    store = published(tmp_path, model, split, "rand_fgsm", *honest("rand_fgsm"))
    images = torch.rand(2, 1, 28, 28)
    with pytest.raises(GradshardError, match=r"epsilon is 0\.05, but the store's attack steps 0\.05 at random"):
        step_along(images, torch.sign(images), 0.05, step=random_step(store), rows=[0, 1])


@pytest.mark.parametrize(("epsilon", "warned"), [(0.1, False), (0.4, False), (0.05, True), (0.5, True)])
def test_a_store_used_beyond_the_epsilons_that_were_measured_is_told(
    tmp_path, model, split, honest, capsys, epsilon, warned
):
    store = published(tmp_path, model, split, "mifgsm", *honest("mifgsm"))
    tell_of_other_epsilons({"D": store}, epsilon=epsilon)
    assert ("source D was crafted at epsilon 0.3" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("kind", "changed", "told"),
    [
        ("pgd", {"eps": 0.1}, "eps: 0.3, where the parameters say 0.1"),
        ("pgd", {"steps": 30}, "steps: 4, where the parameters say 30"),
        ("pgd", {"copies": 1}, "copies: 2, where the parameters say 1"),
        ("pgd", {"label": "true"}, "label: predicted, where the parameters say true"),
        ("pgd", {"gradient": "cross_entropy"}, "gradient: exact, where the parameters say cross_entropy"),
        ("rand_fgsm", {"alpha": 0.1}, r"alpha: 0\.05, where the parameters say 0\.1"),
        ("rand_fgsm", {"seed": 5}, "seed: 4, where the parameters say 5"),
        ("mifgsm", {"attack": "ifgsm"}, "attack: mifgsm, where the parameters say ifgsm"),
        ("fgsm", {"precision": "bf16"}, "precision: fp32, where the parameters say bf16"),
    ],
    ids=str,
)
def test_a_store_of_something_else_than_the_parameters_say_is_not_trained_on(
    tmp_path, model, split, honest, kind, changed, told
):
    store = published(tmp_path, model, split, kind, *honest(kind))
    check_promised(store, wanted_by(kind), tmp_path / "none", name="P", source="P")
    with pytest.raises(GradshardError, match=rf"D\.zarr was made with {told}: run `gradshard precompute P`, or"):
        check_promised(store, wanted_by(kind, **changed), tmp_path / "none", name="P", source="P")


def test_a_gradients_store_in_the_place_of_an_attacks_is_not_trained_on(small_store):
    with pytest.raises(GradshardError, match="attack: none, where the parameters say pgd"):
        check_promised(small_store, wanted_by("pgd"), Path("none"), name="P", source="P")


def test_a_store_of_other_weights_than_the_models_is_told(tmp_path, model, split, honest, capsys):
    store, weights = published(tmp_path, model, split, "fgsm", *honest("fgsm")), tmp_path / "D.safetensors"
    check_promised(store, wanted_by("fgsm"), weights, name="P", source="P")
    assert not capsys.readouterr().err
    weights.write_bytes(b"trained again")
    check_promised(store, wanted_by("fgsm"), weights, name="P", source="P")
    assert "was made from other weights than" in capsys.readouterr().err


@pytest.mark.slow
def test_precompute_audit_repair_and_fidelity_know_a_store_of_an_attack(gradshard, copied_project, capsys, monkeypatch):
    project = copied_project
    project.edit(
        lambda params: params["signs"].update(
            P={"model": "A", "gradient": "exact", "label": "predicted", **KINDS["pgd"]}
        )
    )
    assert gradshard(project, "precompute", "P")[0] == 0
    origin = ("--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr")
    assert gradshard(project, "store", "verify", "signs/P.zarr")[0] == 0
    assert gradshard(project, "store", "audit", "signs/P.zarr", *origin, "--rows", "50")[0] == 0
    victim = project.path / "signs/P.zarr/signs-1/c/0/0/0"
    before = victim.read_bytes()
    victim.chmod(0o644)
    victim.unlink()
    assert gradshard(project, "store", "verify", "signs/P.zarr")[0] == 1
    assert gradshard(project, "store", "repair", "signs/P.zarr", *origin)[0] == 0
    assert victim.read_bytes() == before
    monkeypatch.chdir(project.path)
    capsys.readouterr()
    target = ("--target", "models/static/B.safetensors")
    assert call(monkeypatch, "store", "fidelity", "signs/P.zarr", *origin, *target, "--rows", "60", "--json") == 0
    errors = json.loads(capsys.readouterr().out)["epsilons"]["0.3"]
    assert set(errors) == {"clean", "attack", "store"}
    assert set(errors["store"]) == {"source", "B"}
    assert errors["store"]["source"] > errors["clean"]["source"]


def test_an_attack_from_elsewhere_is_run_only_if_it_is_named(gradshard, copied_project):
    project = copied_project
    attack = {"attack": "torchattacks:FGSM", "eps": 0.3}
    project.edit(lambda params: params["signs"].update(T={"model": "A", "label": "predicted", **attack}))
    assert gradshard(project, "precompute", "T")[0] == 0
    audit = ("store", "audit", "signs/T.zarr", "--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr")
    code, said = gradshard(project, *audit)
    assert code == 2
    assert "if you trust the code of that name, give --attack torchattacks:FGSM" in said
    assert gradshard(project, *audit, "--attack", "torchattacks:FGSM", "--rows", "20")[0] == 0
