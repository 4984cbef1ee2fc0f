"""``import gradshard``: few names, typed, imported when they are used; wrong use told in one sentence."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradshard as gs
from gradshard.arguments import count_classes
from gradshard.pipeline.attacks.crafting import craft_by_name, sample_noise
from gradshard.pipeline.attacks.registry import AttackConfig

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


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_a_model_of_somebodys_own_code_is_not_built_but_told_how_to_build(small_dataset, tmp_path, monkeypatch, output):
    import safetensors.torch

    from gradshard.storage.formats import checkpoints

    code = (
        "from torch import nn\nplain = lambda sample_shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    (tmp_path / "factories.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    kept, path = gs.create_model("factories:plain", (1, 28, 28), 10, seed=1, output=output), tmp_path / "w.safetensors"
    checkpoints.save(path, kept.state_dict(), {"architecture": "factories:plain", "output": output})
    with pytest.raises(
        gs.GradshardError, match=r"whose code is not run here: write model = .* and model.eval\(\)$"
    ) as told:
        gs.load_model(path, small_dataset)
    steps = str(told.value).partition("write ")[2].replace(", model.", "\nmodel.").replace(" and ", "\n")
    names = {"create_model": gs.create_model, "safetensors": safetensors}
    exec(steps, names)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(names["model"](images), kept.eval()(images))
    assert not names["model"].training


def test_a_model_that_gives_probabilities_comes_back_as_their_logarithm(small_dataset, tmp_path):
    from gradshard.pipeline import models
    from gradshard.storage.formats import checkpoints

    kept = models.create_model("D", (1, 28, 28), 10, seed=0, output="probabilities").eval()
    checkpoints.save(tmp_path / "P.safetensors", kept.state_dict(), {"architecture": "D", "output": "probabilities"})
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    loaded = gs.load_model(tmp_path / "P.safetensors", small_dataset)
    assert torch.equal(loaded(images), kept(images))
