"""Optimiser, schedule, regularisation and average, which differ from model to model; whole stages."""

import pytest

from gradshard.storage.formats import checkpoints
from tests.helpers.projects import new_project

RECIPE = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "learning_rate_schedule": "cosine",
    "decay": 1.0,
    "batch": 50,
    "clip_norm": 2.0,
    "weight_decay": 0.0001,
    "label_smoothing": 0.1,
    "dropout": 0.2,
    "average": 0.99,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory, digits):
    project = new_project(tmp_path_factory.mktemp("recipe") / "project", digits, train=200)

    def change(params):
        params["training"]["decay_epochs"] = 1
        params["static"]["A"] |= {"training": RECIPE, "epochs": 1}
        params["static"]["C"]["training"] = {"auxiliary": 0.4}

    project.edit(change)
    project.run("prepare")
    return project


@pytest.mark.slow
def test_a_model_is_trained_by_its_own_recipe_and_its_weights_say_which(project):
    project.run("train-static", "A")
    _, record = checkpoints.load(project.path / "models/static/A.safetensors")
    usual = project.params()["training"]
    found = record["recipe"]["training"]
    # What has its usual value is left out of a record.
    asked_for = {key: value for key, value in RECIPE.items() if key != "decay"}
    assert {key: found[key] for key in asked_for} == asked_for
    assert found["decay_epochs"] == usual["decay_epochs"]


@pytest.mark.slow
def test_an_architecture_without_an_auxiliary_classifier_is_refused(project, gradshard):
    code, said = gradshard(project, "train-static", "C")
    assert code == 2
    assert "training.auxiliary: architecture D has no auxiliary classifier, as Inception3, " in said
    assert not (project.path / "models/static/C.safetensors").exists()
