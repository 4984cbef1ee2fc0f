"""Models of torchvision and transformers with their weights as they are: taken, crafted from and audited."""

import json

import numpy as np
import pytest
import torch

import gradshard as package
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.storage.formats.dataset import open_dataset
from tests.helpers.library_weights import torch_hub_file, transformers_folder

CLASSES = {"hf:nets/resnet": 10, "hf:nets/vit": 10, "torchvision:shufflenet_v2_x0_5": 1000}


@pytest.fixture(params=CLASSES)
def architecture(request, project, monkeypatch):
    """A project whose model A is one of a library, with its weights; gives the architecture."""
    name, classes = request.param, CLASSES[request.param]
    if name.startswith("hf:"):
        transformers_folder(project.path / "nets" / name[8:], name[8:])
    else:
        torch_hub_file(monkeypatch, project.path / "cache", name.partition(":")[2])

    def change(params):
        params["static"]["A"] = {"architecture": name, "epochs": 0, "weights": "pretrained"}
        params["static"] = {key: params["static"][key] for key in "AB"}
        params["signs"] = {"A": params["signs"]["A"]}
        params["dataset"]["classes"] = classes
        params["robust"], params["blackbox"]["targets"], params["evaluation"]["diagnosed"] = {}, [], []
        params["evaluation"].update(holdout="B", targets=["A"], attacks={"fgsm": ["A"]}, illustrated=[])
        params["analysis"].update(models=[], plane={"model": "A", "source": "A", "points": 1})

    project.edit(change)
    with np.load(project.path / "digits.npz") as archive:
        few = {key: value[:120] for key, value in archive.items()}
    np.savez(project.path / "digits.npz", **few)
    return name


def test_a_model_of_a_library_is_taken_as_it_is_and_its_store_is_honest(project, gradshard, architecture):
    for stage in (["prepare"], ["train-static", "A"], ["precompute", "A"]):
        code, said = gradshard(project, *stage)
        assert code == 0, said
    where = ["--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr"]
    code, said = gradshard(project, "store", "audit", "signs/A.zarr", *where, "--rows", "60")
    assert code == 0, said
    manifest = json.loads((project.path / "signs/A.zarr/manifest.json").read_text())
    assert manifest["model"]["architecture"] == architecture
    data = open_dataset(project.path / "data/npz.zarr")
    model = package.load_model(project.path / "models/static/A.safetensors", data)
    images = torch.from_numpy(data.train.read_images(0, 40)).float() / 255
    gradient, _ = input_gradient(model, images, None, policy="predicted")
    stored = package.unpack_signs(
        torch.from_numpy(package.open_signs(project.path / "signs/A.zarr").read(0, 40)), images.shape
    )
    assert (gradient.sign() == stored).float().mean() > 0.99


@pytest.mark.slow
def test_a_model_of_a_library_is_trained_also_robustly(project, gradshard, architecture):
    robust = {"architecture": architecture, "epochs": 1, "sources": ["A"]}
    project.edit(lambda params: params["static"]["A"].update(epochs=1, weights="random"))
    project.edit(lambda params: params.update(robust={"R": robust}))
    for stage in (["prepare"], ["train-static", "A"], ["precompute", "A"], ["sources"], ["train-robust", "R"]):
        code, said = gradshard(project, *stage)
        assert code == 0, said
