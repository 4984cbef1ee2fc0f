"""Models with a fault, through the commands: one sentence before any work, or told beside every figure."""

import json
import math

import pytest
import torch

from gradshard.storage.formats import checkpoints, results
from gradshard.storage.formats.manifest import read_manifest
from tests.helpers.imagefolders import files_of

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(784, classes)

    def before(self, x):
        return x

    def after(self, z):
        return z

    def forward(self, x):
        return self.after(self.head(self.before(x).flatten(1)))


class InPlace(Net):
    def before(self, x):
        x -= 0.5
        return x


class Noisy(Net):
    def before(self, x):
        return x + 0.1 * torch.randn_like(x)


class Rounds(Net):
    def before(self, x):
        return (4 * x).round() / 4


class Undefined(Net):
    def before(self, x):
        return x * (1 + (x[:, :, :2, :2] ** 2).sum((1, 2, 3), keepdim=True).sqrt())


class Probabilities(Net):
    def after(self, z):
        return z.softmax(1)


class Late(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.first = nn.LazyConv2d(1, 3, padding=1)

    def before(self, x):
        return self.first(x)


class Viewed(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.first = nn.Conv2d(1, 4, 2, stride=2)

    def before(self, x):
        h = self.first(x)
        return h.view(len(h), -1)


class Frozen(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.first = nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False)

    def before(self, x):
        return self.first(x)


class Normed(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.norm = nn.BatchNorm1d(classes)

    def after(self, z):
        return self.norm(z)


def _maker(kind):
    return lambda sample_shape, classes: kind(classes)


in_place, noisy, rounds, undefined, probabilities = map(_maker, (InPlace, Noisy, Rounds, Undefined, Probabilities))
late, viewed, frozen, normed = map(_maker, (Late, Viewed, Frozen, Normed))
"""


@pytest.fixture
def own(copied_project):
    """A finished project whose folder has the models of ``FACTORY``; gives a function that makes A one of them."""
    (copied_project.path / "faulty.py").write_text(FACTORY)

    def choose(factory, **values):
        static = {"architecture": f"faulty:{factory}", "epochs": 1, **values}
        copied_project.edit(lambda params: params["static"].update(A=static))
        return copied_project

    return choose


@pytest.mark.parametrize(
    ("factory", "saying"),
    [
        ("in_place", "architecture faulty:in_place changes the images that it is given"),
        ("noisy", "architecture faulty:noisy is random in eval mode"),
        ("probabilities", "architecture faulty:probabilities gives probabilities and not logits"),
        ("viewed", "architecture faulty:viewed does not take images of 1x28x28 and 10 classes (view size is not"),
    ],
)
def test_a_faulty_model_is_refused_before_it_is_trained(own, gradshard, factory, saying):
    project = own(factory)
    before = files_of(project.path / "models")
    code, said = gradshard(project, "train-static", "A")
    assert code == 2
    assert saying in said.strip().splitlines()[-1]
    assert files_of(project.path / "models") == before


def test_batch_normalisation_meets_no_last_batch_of_one(own, gradshard):
    project = own("normed")
    project.edit(lambda params: params["training"].update(batch=599))
    code, said = gradshard(project, "train-static", "A")
    assert code == 2
    assert "does not take a batch of 1 in train mode" in said
    project.edit(lambda params: params["training"].update(batch=200))
    assert gradshard(project, "train-static", "A")[0] == 0


def test_a_masked_gradient_is_refused_in_a_store_unless_it_is_asked_for(own, gradshard):
    project = own("rounds")
    before = files_of(project.path / "signs")
    code, said = gradshard(project, "train-static", "A")
    assert code == 0
    assert "the input gradient is 0 in every pixel of 8 of 8 images tried" in said
    code, said = gradshard(project, "precompute", "A")
    assert code == 2
    assert "the gradient of A is 0 in every pixel for 8 of 8 images" in said.strip().splitlines()[-1]
    assert "set signs.A.zero_rows to the share that may be" in said
    assert files_of(project.path / "signs") == before
    project.edit(lambda params: params["signs"]["A"].update(zero_rows=1.0))
    code, said = gradshard(project, "precompute", "A")
    assert code == 0
    assert "nothing else in 600 rows (100.00%), where the gradient is masked" in said
    assert read_manifest(project.path / "signs/A.zarr").zero_fraction == 1
    assert "the model's gradient is masked" in (project.path / "signs/A.zarr/README.md").read_text()


def test_the_share_of_masked_rows_counts_over_the_whole_store(own, gradshard):
    """Some rows of a saturated softmax have no gradient, others have."""
    project = own("in_place", architecture="D", epochs=2)
    project.edit(lambda params: params["signs"]["A"].update(gradient="cross_entropy"))
    tensors, record = checkpoints.load(project.path / "models/static/A.safetensors")
    sharp = {name: tensor * 3000 if name.startswith("fc5") else tensor for name, tensor in tensors.items()}
    checkpoints.save(project.path / "models/static/A.safetensors", sharp, record)
    project.edit(lambda params: params["signs"]["A"].update(zero_rows=1.0))
    assert gradshard(project, "precompute", "A")[0] == 0
    project.edit(lambda params: params["signs"]["A"].update(zero_rows=0.001))
    before = files_of(project.path / "signs")
    code, said = gradshard(project, "precompute", "A")
    assert code == 2
    assert "of 600 images, so their signs attack nobody" in said
    assert files_of(project.path / "signs") == before


def test_an_undefined_gradient_is_refused_in_stores_and_withheld_from_rates(own, gradshard):
    project = own("undefined")
    code, said = gradshard(project, "train-static", "A")
    assert code == 0
    assert "the input gradient is NaN or infinite for 8 of 8 images tried" in said
    code, said = gradshard(project, "precompute", "A")
    assert code == 2
    assert "the input gradient is NaN or infinite for 8 of 8 images, so it has no sign" in said
    project.edit(lambda params: params["analysis"].update(models=["A"]))
    for stage in ("analyze", "blackbox"):
        project.edit(lambda params: params["blackbox"].update(targets=["A"]))
        code, said = gradshard(project, stage)
        assert code == 2
        assert "the input gradient of A is NaN or infinite for 8 of 8 images, so nothing can be measured by it" in said
    project.edit(lambda params: params["evaluation"].update(targets=["A", "B"], attacks={"fgsm": ["A", "B"]}))
    project.edit(lambda params: params["evaluation"].update(diagnosed=["A"], illustrated=[], gradients=["exact"]))
    code, said = gradshard(project, "evaluate")
    assert code == 0, said
    assert "A: its gradient was NaN or infinite for 120 of 120 rows, so no error under what it crafted is shown" in said
    rows = results.read_matrix(project.path / "evaluation/10/matrix.parquet")
    assert {(row["target"], row["source"], row["attack"]) for row in rows} == {
        ("A", "", "clean"),
        ("B", "", "clean"),
        ("A", "B", "fgsm"),
        ("B", "B", "fgsm"),
    }
    told = json.loads((project.path / "evaluation/10/diagnostics.json").read_text())
    assert told["undefined_gradients"] == {"A": {"undefined": 120, "rows": 120}}
    raised = told["models"]["A"]["exact"]["flags"]
    assert ("undefined-gradients", "120 of 120") in [(flag["name"], flag["figures"]) for flag in raised]
    assert gradshard(project, "report")[0] == 0
    page = " ".join((project.path / "report/index.html").read_text().split())
    assert "because their gradient was NaN or infinite where an attack asked for it: A (120 of 120 gradients)." in page


def test_an_adversarial_training_without_a_gradient_is_refused(own, gradshard):
    project = own("undefined")
    project.edit(lambda params: params["robust"]["A_adv"].update(architecture="faulty:undefined"))
    code, said = gradshard(project, "train-robust", "A_adv")
    assert code == 2
    assert "NaN or infinite for 8 of 8 images, so it has no sign to perturb them by" in said


def test_probabilities_are_taken_if_that_is_said_and_known_to_whoever_loads_them(own, gradshard):
    project = own("probabilities", output="probabilities", epochs=2)
    for stage in (["train-static", "A"], ["precompute", "A"]):
        code, said = gradshard(project, *stage)
        assert code == 0, said
    assert checkpoints.load(project.path / "models/static/A.safetensors")[1]["output"] == "probabilities"
    audit = ["--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr", "--architecture"]
    code, said = gradshard(project, "store", "audit", "signs/A.zarr", *audit, "faulty:probabilities", "--rows", "50")
    assert code == 0, said


def test_the_seed_reaches_layers_that_are_made_in_their_first_pass(own, gradshard):
    project, found = own("late"), []
    for seed in (4, 4, 5):
        own("late", seed=seed)
        torch.manual_seed(len(found))
        assert gradshard(project, "train-static", "A")[0] == 0
        tensors, _ = checkpoints.load(project.path / "models/static/A.safetensors")
        found.append(checkpoints.tensors_digest(tensors, ""))
    assert found[0] == found[1] != found[2]


def test_what_a_factory_froze_stays_frozen_and_is_told(own, gradshard):
    project = own("frozen", seed=3)
    code, said = gradshard(project, "train-static", "A")
    assert code == 0
    assert "architecture faulty:frozen: 2 tensors stay as they are, such as first.weight" in said
    trained, _ = checkpoints.load(project.path / "models/static/A.safetensors")
    own("frozen", seed=3, epochs=0, weights="random")
    assert gradshard(project, "train-static", "A")[0] == 0
    untrained, _ = checkpoints.load(project.path / "models/static/A.safetensors")
    assert torch.equal(trained["first.weight"], untrained["first.weight"])
    assert not torch.equal(trained["head.weight"], untrained["head.weight"])


def test_weights_with_a_nan_are_refused_by_the_tensors_name(own, gradshard):
    project = own("in_place", architecture="D", epochs=0, weights="broken.pt")
    tensors, _ = checkpoints.load(project.path / "models/static/B.safetensors")
    tensors["fc3.bias"][7] = math.nan
    torch.save({"net": tensors}, project.path / "broken.pt")
    before = files_of(project.path / "models")
    code, said = gradshard(project, "train-static", "A")
    assert code == 2
    assert "broken.pt: the weights under net are taken" in said
    assert "broken.pt holds 1 values of 300 in fc3.bias that are no finite numbers" in said.strip().splitlines()[-1]
    assert files_of(project.path / "models") == before


def test_one_model_under_two_names_is_told(copied_project, gradshard):
    signs = copied_project.path / "signs"
    options = [f"{name}={signs / 'A.zarr'}" for name in ("C",)]
    code, said = gradshard(copied_project, "train-robust", "A_adv-ens", "--store", *options)
    assert code == 0, said
    assert "sources A and C are signs of one model, " in said
