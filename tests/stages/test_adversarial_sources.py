"""A static model that is trained adversarially: as a robust one would be, and a source like any other."""

import json

import numpy as np
import pytest

from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.sign_reader import open_store
from tests.helpers.projects import Project, call_each, new_project

pytestmark = pytest.mark.slow

METHOD = {"method": "pgd_at", "steps": 5}


def change(params: dict) -> None:
    """PGD-AT as a static model and, with the same seed and learning rate, as a robust one; a defence on its signs."""
    params["static"]["Madry"] = {"architecture": "D", "epochs": 3, "seed": 10, "eps": params["attack"]["eps"], **METHOD}
    params["robust"]["pgd"] = {"architecture": "D", "epochs": 3, **METHOD}
    params["robust"]["stored"] = {"architecture": "D", "epochs": 1, "sources": ["Madry"], "self": False}
    params["signs"]["Madry"] = {"model": "Madry", "gradient": "exact", "label": "predicted"}
    params["adversarial"]["learning_rate"] = params["training"]["learning_rate"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits) -> Project:
    project = new_project(tmp_path_factory.mktemp("sources") / "project", digits)
    project.edit(change)
    call_each(
        project,
        ("prepare",),
        ("train-static", "D"),
        ("train-static", "Madry"),
        ("train-robust", "pgd"),
        ("precompute", "Madry"),
        ("train-robust", "stored"),
    )
    return project


def test_it_has_the_weights_of_a_robust_model_trained_alike(trained):
    static, _ = checkpoints.load(trained.path / "models/static/Madry.safetensors")
    robust, _ = checkpoints.load(trained.path / "models/robust/pgd-10.safetensors")
    clean, _ = checkpoints.load(trained.path / "models/static/D.safetensors")
    assert static.keys() == robust.keys()
    assert all(np.array_equal(static[name], robust[name]) for name in static)
    assert not all(np.array_equal(static[name], clean[name]) for name in static)


def test_its_record_says_how_it_was_trained_and_its_passes_are_counted(trained):
    _, record = checkpoints.load(trained.path / "models/static/Madry.safetensors")
    assert record["recipe"]["static"] == {
        **{"architecture": "D", "epochs": 3, "seed": 10, "weights": "random", "epsilon": 0.3},
        **METHOD,
    }
    found, images = json.loads((trained.path / "training/Madry.json").read_text()), 3 * 600
    assert found["passes"] == {"images": images, "forward": 6 * images, "backward": 6 * images}


def test_a_store_of_it_is_trained_on_like_any_other(trained):
    store = open_store(trained.path / "signs/Madry.zarr")
    _, record = checkpoints.load(trained.path / "models/robust/stored-10.safetensors")
    assert record["recipe"]["stores"] == {"Madry": store.manifest.content}
