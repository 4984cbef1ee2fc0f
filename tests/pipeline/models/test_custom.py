"""``package.module:factory``: how it is called, what it may be, and what is said when it is something else."""

import re
import sys
from pathlib import Path

import pytest
import torch

from gradshard.pipeline import models
from gradshard.storage.errors import GradshardError

ROOT = Path(__file__).parents[3]
SHAPE = (3, 8, 10)
MODULE = """
import torch
from torch import nn

calls = []


class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * (shape[1] - 2) * (shape[2] - 2), classes)

    def forward(self, images):
        return self.head(self.body(2 * images - 1))


def make(sample_shape, classes):
    calls.append((sample_shape, classes))
    return Net(sample_shape, classes)


def wrong_logits(sample_shape, classes):
    return Net(sample_shape, classes + 1)


def two_outputs(sample_shape, classes):
    class Two(Net):
        def forward(self, images):
            return super().forward(images), None
    return Two(sample_shape, classes)


def other_images(sample_shape, classes):
    return Net((1, 8, 10), classes)


def no_module(sample_shape, classes):
    return "a model"


def scripted(sample_shape, classes):
    return torch.jit.script(Net(sample_shape, classes))


def without_values(sample_shape, classes):
    return Net(sample_shape, classes).to("meta")


def sparse(sample_shape, classes):
    net = Net(sample_shape, classes)
    net.head.weight = nn.Parameter(net.head.weight.detach().to_sparse(), requires_grad=False)
    return net


def failing(sample_shape, classes):
    return {}["weights"]


def positional(shape, classes):
    return Net(shape, classes)


def with_a_mean(sample_shape, classes):
    net = Net(sample_shape, classes)
    net.register_buffer("mu", torch.full((3, 1, 1), 0.5))
    return net


def one_score(sample_shape, classes):
    return Net(sample_shape, 1)


number = 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module in the current folder that is on no path, as beside params.yaml."""
    (tmp_path / "my").mkdir()
    (tmp_path / "my/nets.py").write_text(MODULE)
    (tmp_path / "my/broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "my/invalid.py").write_text("def make(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])


def test_a_factory_gets_the_shape_and_the_classes_and_its_model_is_used(nets):
    model = models.create_model("my.nets:make", SHAPE, 7, seed=1)
    assert sys.modules["my.nets"].calls == [(SHAPE, 7)]
    assert model.training
    assert model(torch.rand(4, *SHAPE)).shape == (4, 7)


def test_the_factory_of_the_docs_makes_a_model_that_keeps_the_contract(nets, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/models.md").read_text(), flags=re.DOTALL)
    (tmp_path / "my/of_the_docs.py").write_text(code)
    model = models.create_model("my.of_the_docs:make_net", SHAPE, 7, seed=1).eval()
    images = torch.rand(6, *SHAPE)
    torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), model(images))


def test_what_it_draws_follows_the_seed_and_leaves_the_generator_alone(nets):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (models.create_model("my.nets:make", SHAPE, 7, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_a_model_with_batch_norm_comes_back_with_its_buffers(nets):
    model = models.create_model("my.nets:make", SHAPE, 7, seed=1)
    for _ in range(3):
        model(torch.rand(16, *SHAPE))
    state = model.state_dict()
    assert state["body.1.num_batches_tracked"] == 3
    restored = models.load_frozen("my.nets:make", SHAPE, 7, state, where="w")
    images = torch.rand(4, *SHAPE)
    assert torch.equal(restored(images), model.eval()(images))


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ("my.nothing:make", "there is no module my.nothing: run this in the folder that holds it"),
        ("nowhere.nets:make", "there is no module nowhere"),
        ("my.broken:make", "there is no module nothing_of_this_name"),
        ("my.invalid:make", r"the module my.invalid cannot be imported \(SyntaxError"),
        ("my.nets:absent", "the module my.nets has no absent"),
        ("my.nets:number", "number is no function"),
        ("my.nets:no_module", "made a str and not a torch.nn.Module"),
        ("my.nets:scripted", "was made by torch.jit: give the module itself, before it is scripted or traced"),
        ("my.nets:without_values", r"holds a tensor without values \(device meta\), body.0.weight"),
        ("my.nets:sparse", r"holds a sparse or quantised tensor, head.weight: a model's parameters and buffers are"),
        ("my.nets:failing", r"the factory failed .* \(KeyError: 'weights', .*nets.py:\d+\)"),
        ("my.nets:positional", "the factory failed .* unexpected keyword argument 'sample_shape'"),
        ("my.nets:wrong_logits", r"gives \(1, 8\) for one image and not logits of shape \(1, 7\)"),
        ("my.nets:two_outputs", "gives tuple for one image and not logits"),
        ("my.nets:other_images", "does not take images of 3x8x10 and 7 classes .*: mend the factory"),
    ],
)
def test_what_is_no_factory_of_such_models_is_refused(nets, architecture, sentence):
    with pytest.raises(GradshardError, match=sentence):
        models.create_model(architecture, SHAPE, 7, seed=0)


@pytest.mark.parametrize("name", ["a:", ":f", "a b:f", "a:f()", "a..b:f", "a:f.g", "../a:f", "E"])
def test_other_forms_are_no_factories(name):
    with pytest.raises(GradshardError, match=r"unknown architecture .*: the known ones are A, B, C, D, small"):
        models.create_model(name, SHAPE, 7, seed=0)


def test_the_origin_is_the_code_that_the_factory_lies_in(nets, tmp_path):
    before = models.provenance("my.nets:make")
    assert before.keys() == {"factory"}
    (tmp_path / "my/nets.py").write_text(MODULE + "\n")
    assert models.provenance("my.nets:make") != before
    assert models.provenance("A") == {}


def test_only_factories_need_code():
    assert models.runs_user_code("os:system")
    assert not any(models.runs_user_code(name) for name in ("A", "timm:resnet18", "timm:hf-hub:x/y"))


def test_a_checkpoint_fills_a_model(nets):
    trained = models.create_model("my.nets:make", SHAPE, 7, seed=1)
    trained(torch.rand(8, *SHAPE))
    model = models.create_model("my.nets:make", SHAPE, 7, seed=2)
    unused = models.load_weights(model, trained.state_dict() | {"aux.weight": torch.zeros(3)}, where="c.pt")
    assert unused == ["aux.weight"]
    images = torch.rand(4, *SHAPE)
    assert torch.equal(model.eval()(images), trained.eval()(images))


def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(nets):
    model = models.create_model("my.nets:make", SHAPE, 7, seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lacking = {name: torch.zeros_like(t) for name, t in before.items() if name != "body.1.running_var"}
    with pytest.raises(
        GradshardError, match=r"c\.pt lacks 1 of the 9 tensors .*, such as body\.1\.running_var \(it has"
    ):
        models.load_weights(model, lacking, where="c.pt")
    other = models.create_model("my.nets:make", SHAPE, 5, seed=1).state_dict()
    with pytest.raises(
        GradshardError, match=r"holds head\.weight of shape \(5, 192\), but the architecture has \(7, 192"
    ):
        models.load_weights(model, other, where="c.pt")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_checkpoint_without_the_counters_of_batch_normalisation_is_taken(nets):
    old = models.create_model("my.nets:make", SHAPE, 7, seed=1).state_dict()
    del old["body.1.num_batches_tracked"]
    model = models.create_model("my.nets:make", SHAPE, 7, seed=2)
    assert any(names <= old.keys() for names in models.accepted_names(model))
    assert models.load_weights(model, old, where="c.pt") == []
    assert torch.equal(model.head.weight, old["head.weight"])


def test_where_only_constants_of_the_factory_lack_in_a_checkpoint_the_remedy_is_told(nets):
    trained = models.create_model("my.nets:make", SHAPE, 7, seed=1).state_dict()
    model = models.create_model("my.nets:with_a_mean", SHAPE, 7, seed=2)
    with pytest.raises(GradshardError, match=r"lacks 1 of the .* such as mu .*: where the factory .*persistent=False"):
        models.load_weights(model, trained, where="c.pt")


def test_a_single_score_for_two_classes_is_refused_and_how_to_make_two_logits_of_it_is_told(nets):
    with pytest.raises(GradshardError, match=r"gives \(1, 1\) for one image .*: give two logits, such as torch\.cat"):
        models.create_model("my.nets:one_score", SHAPE, 2, seed=1)


def test_only_models_of_libraries_have_pretrained_weights(nets):
    for name in ("A", "my.nets:make"):
        with pytest.raises(
            GradshardError,
            match=r"has no pretrained weights to fetch: only timm:NAME, torchvision:NAME and hf:FOLDER have",
        ):
            models.pretrained(name, SHAPE, 7, seed=0)
