"""Static models whose weights are given, and models of one's own: through the command line and what follows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from gradshard.pipeline import models
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.manifest import read_manifest
from tests.helpers.imagefolders import files_of

FACTORY = """
from torch import nn


def make(sample_shape, classes):
    channels, height, width = sample_shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(),
        nn.Linear(8 * ((height - 1) // 2) * ((width - 1) // 2), classes),
    )
"""


def set_static(project, name, **values):
    project.edit(lambda params: params["static"][name].update(values))


@pytest.fixture
def given(copied_project):
    """A finished project whose model A is to come from a checkpoint of the same weights."""
    shutil.move(copied_project.path / "models/static/A.safetensors", copied_project.path / "given.safetensors")
    set_static(copied_project, "A", epochs=0, weights="given.safetensors")
    return copied_project


@pytest.mark.slow
def test_given_weights_are_taken_as_they_are_and_all_that_follows_is_the_same(given, gradshard):
    store = files_of(given.path / "signs/A.zarr")
    code, said = gradshard(given, "train-static", "A")
    assert code == 0, said
    assert "models/static/A.safetensors: taken as it is, " in said
    assert "on the first 100 train images" in said
    tensors, record = checkpoints.load(given.path / "models/static/A.safetensors")
    expected, _ = checkpoints.load(given.path / "given.safetensors")
    assert checkpoints.tensors_digest(tensors, "D") == checkpoints.tensors_digest(expected, "D")
    assert (record["architecture"], record["epoch"]) == ("D", 0)
    assert "given" not in json.dumps(record)
    assert gradshard(given, "precompute", "A")[0] == 0
    # The weights file is another one: manifest and card name it, and croissant.json the card; all else is the same.
    again = files_of(given.path / "signs/A.zarr")
    different = {name for name in store if again[name] != store[name]}
    assert different == {"README.md", "croissant.json", "manifest.json"}
    for stage in ("evaluate", "report"):
        code, said = gradshard(given, stage)
        assert code == 0, said


def test_taking_weights_twice_gives_the_same_bytes(given, gradshard):
    found = []
    for place in ("given.safetensors", "elsewhere.safetensors"):
        if place != "given.safetensors":
            shutil.move(given.path / "given.safetensors", given.path / place)
            set_static(given, "A", weights=place)
        assert gradshard(given, "train-static", "A")[0] == 0
        found.append((given.path / "models/static/A.safetensors").read_bytes())
    assert found[0] == found[1]


def test_training_begins_with_given_weights(given, gradshard):
    set_static(given, "A", epochs=1)
    loss = {}
    for name, start in (("given", "given.safetensors"), ("random", "random")):
        set_static(given, "A", weights=start)
        code, said = gradshard(given, "train-static", "A")
        assert code == 0, said
        loss[name] = json.loads((given.path / "training/A.json").read_text())["loss"]
    assert loss["given"] < loss["random"] / 2


def test_weights_may_be_random_and_untrained_if_that_is_said(given, gradshard):
    set_static(given, "A", weights="random", seed=7)
    assert gradshard(given, "train-static", "A")[0] == 0
    tensors, _ = checkpoints.load(given.path / "models/static/A.safetensors")
    built = models.create_model("D", (1, 28, 28), 10, seed=7).state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("static", "saying"),
    [
        (
            {"architecture": "D", "epochs": 0},
            "params.yaml: static.A.epochs is 0, which takes weights as they are: name",
        ),
        ({"architecture": "D", "epochs": -1, "weights": "x"}, "params.yaml: static.A.epochs should be greater than or"),
        ({"architecture": "D", "epochs": 0, "weights": "x.pt"}, "no checkpoint at x.pt"),
        (
            {"architecture": "C", "epochs": 0, "weights": "given.safetensors"},
            "given.safetensors lacks 4 of the 8 tensors",
        ),
        (
            {"architecture": "D", "epochs": 0, "weights": "pretrained"},
            "architecture D has no pretrained weights to fetch",
        ),
        ({"architecture": "timm:resnet18", "epochs": 0, "weights": "pretrained"}, "tell 1000 classes apart, but the"),
        ({"architecture": "timm:inception_v3", "epochs": 1}, "does not take images of 1x28x28 and 10 classes"),
        ({"architecture": "timm:resnet81", "epochs": 1}, "has no model resnet81 (did you mean resnet"),
        ({"architecture": "nets:make", "epochs": 1}, "architecture nets:make: there is no module nets"),
    ],
)
def test_weights_and_architectures_that_do_not_fit_are_one_sentence(given, gradshard, static, saying):
    before = files_of(given.path / "models")
    given.edit(lambda params: params["static"].update(A=static))
    code, said = gradshard(given, "train-static", "A")
    assert code == 2
    assert saying in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert files_of(given.path / "models") == before


@pytest.mark.slow
def test_pretrained_weights_without_a_network_are_one_sentence(given, tmp_path, monkeypatch):
    """The hub at an address where nobody listens, and an empty cache."""
    set_static(given, "A", architecture="timm:resnet18.a1_in1k", epochs=1, weights="pretrained")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    process = given.popen("train-static", "A")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 2
    assert "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("gradshard: the pretrained weights of timm:resnet18.a1_in1k could not be fetched (")
    assert last.endswith("check the network and try again, or fetch the file elsewhere and name it in weights")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache with weights of a tiny model for 1,000 classes, and no network; gives those weights."""
    revision = "0" * 40
    folder = tmp_path / "hub/hub/models--timm--test_resnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(revision)
    (folder / "snapshots" / revision).mkdir(parents=True)
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, folder / "snapshots" / revision / "model.safetensors")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return state


@pytest.mark.slow
def test_pretrained_weights_are_taken_for_their_own_classes(given, hub):
    given.edit(lambda params: params["dataset"].update(classes=1000))
    set_static(given, "A", architecture="timm:test_resnet.r160_in1k", weights="pretrained")
    given.run("prepare")
    assert "models/static/A.safetensors: taken as it is, " in given.run("train-static", "A")
    tensors, _ = checkpoints.load(given.path / "models/static/A.safetensors")
    for name, tensor in hub.items():
        # Grey images: timm adds up the first layer's weights over the channels.
        expected = tensor.sum(1, keepdim=True) if name == "conv1.0.weight" else tensor
        assert torch.equal(tensors[f"model.{name}"], expected), name


@pytest.mark.slow
def test_pretrained_weights_get_a_new_classifier_where_they_are_trained_for_other_classes(given, hub):
    set_static(given, "A", architecture="timm:test_resnet.r160_in1k", weights="pretrained")
    process = given.popen("train-static", "A")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 2
    assert "tell 1000 classes apart, but the dataset has 10: " in said
    set_static(given, "A", epochs=1)
    said = given.run("train-static", "A")
    assert "its pretrained weights are for 1000 classes; the classifier for 10 is new" in said
    assert checkpoints.load(given.path / "models/static/A.safetensors")[0]["model.fc.weight"].shape[0] == 10


@pytest.fixture
def own(copied_project):
    """A finished project whose model A is to be one of somebody's own, defined beside params.yaml."""
    (copied_project.path / "my_nets.py").write_text(FACTORY)
    set_static(copied_project, "A", architecture="my_nets:make", epochs=2)
    return copied_project


@pytest.mark.slow
def test_a_model_of_ones_own_is_trained_crafted_from_and_evaluated(own):
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}"}
    for stage in ("train-static A", "precompute A --workers 2", "evaluate", "report"):
        done = subprocess.run(
            ["gradshard", *stage.split()], cwd=own.path, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
    store = files_of(own.path / "signs/A.zarr")
    assert read_manifest(own.path / "signs/A.zarr").model.architecture == "my_nets:make"
    own.run("precompute", "A")
    assert files_of(own.path / "signs/A.zarr") == store


def test_a_manifest_does_not_choose_what_code_runs(own, gradshard):
    for stage in (["train-static", "A"], ["precompute", "A"]):
        assert gradshard(own, *stage)[0] == 0
    arguments = [
        "store",
        "audit",
        "signs/A.zarr",
        "--model",
        "models/static/A.safetensors",
        "--dataset",
        "data/npz.zarr",
    ]
    (own.path / "my_nets.py").write_text(FACTORY + "\nopen('ran', 'w').close()\n")
    sys.modules.pop("my_nets", None)
    code, said = gradshard(own, *arguments)
    assert code == 2
    assert said.strip().endswith(
        "says that its model is of architecture my_nets:make: if you trust the code of that name, give --architecture "
        "my_nets:make"
    )
    assert not (own.path / "ran").exists()
    code, said = gradshard(own, *arguments, "--architecture", "my_nets:make")
    assert code == 0, said
    assert (own.path / "ran").exists()
