"""A robust model whose training begins with the weights of a static one."""

import numpy as np
import pytest

from gradshard.storage.formats import checkpoints
from tests.helpers.projects import Project, call_each, new_project

pytestmark = pytest.mark.slow

# Smaller than the spacing of floats about any weight: a step of Adam changes nothing.
STANDSTILL = 1e-30


def change(params: dict) -> None:
    """Three models that begin with D, two of which stay where they began; in the run of seed 11, D-2 stands for D."""
    params["static"]["D-2"] = {"architecture": "D", "epochs": 1, "seed": 9}
    params["signs"] = {}
    params["seeds"], params["stand_ins"] = [10, 11], {11: {"D": "D-2"}}
    still = {"architecture": "D", "epochs": 1, "init_from": "D", "training": {"learning_rate": STANDSTILL}}
    params["robust"] = {
        "still": still,
        "pgd": still | {"method": "pgd_at", "steps": 2},
        "moved": {"architecture": "D", "epochs": 1, "init_from": "D"},
    }
    params["evaluation"].update(targets=["still"], attacks={}, illustrated=[], diagnosed=[])
    params["analysis"].update(models=[], plane={"model": "still", "source": "B", "points": 1})
    params["blackbox"].update(targets=[], forest=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits) -> Project:
    project = new_project(tmp_path_factory.mktemp("init") / "project", digits)
    project.edit(change)
    call_each(
        project,
        ("prepare",),
        ("train-static", "D"),
        ("train-static", "D-2"),
        ("train-robust", "still", "--seed", "10"),
        ("train-robust", "still", "--seed", "11"),
        ("train-robust", "pgd", "--seed", "10"),
        ("train-robust", "moved", "--seed", "10"),
    )
    return project


def weights(project: Project, name: str) -> dict[str, np.ndarray]:
    return checkpoints.load(project.path / "models" / f"{name}.safetensors")[0]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("robust", "static"), [("still-10", "D"), ("pgd-10", "D"), ("still-11", "D-2")], ids=["", "by a method", "stand-in"]
)
def test_training_begins_with_the_weights_of_the_static_model(trained, robust, static):
    assert same(weights(trained, f"robust/{robust}"), weights(trained, f"static/{static}"))


def test_it_goes_on_from_there(trained):
    assert not same(weights(trained, "robust/moved-10"), weights(trained, "static/D"))


def test_the_weights_say_what_they_began_with(trained):
    recipe = checkpoints.load(trained.path / "models/robust/moved-10.safetensors")[1]["recipe"]
    assert recipe["robust"]["init_from"] == "D"
    assert recipe["initial"] == checkpoints.tensors_digest(weights(trained, "static/D"), "D")


def test_sources_note_the_weights_that_a_training_begins_with(trained, tmp_path):
    project = trained.copy_to(tmp_path / "project")
    project.run("sources")
    begun = {path.stem: path.read_text() for path in (project.path / "sources").iterdir()}
    assert begun["still-10"] == begun["moved-10"] != begun["still-11"]
    (project.path / "models/static/D.safetensors").write_bytes(
        (project.path / "models/static/D-2.safetensors").read_bytes()
    )
    project.run("sources")
    assert (project.path / "sources/still-10.json").read_text() == begun["still-11"]


def test_a_static_model_trained_anew_is_begun_with_anew(trained, tmp_path):
    project = trained.copy_to(tmp_path / "project")
    project.edit(lambda params: params["static"]["D"].update(seed=77))
    project.run("train-static", "D")
    project.run("train-robust", "still", "--seed", "10")
    assert same(weights(project, "robust/still-10"), weights(project, "static/D"))
    assert not same(weights(project, "static/D"), weights(trained, "static/D"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "no weights at models/static/D.safetensors: run `gradshard train-static D` first"),
        (
            lambda path: checkpoints.save(path, checkpoints.load(path)[0], {"architecture": "A"}),
            "models/static/D.safetensors holds a model of architecture A, but the parameters say D: train that model",
        ),
        (lambda path: path.write_bytes(b"weights"), "models/static/D.safetensors is not a weights file of gradshard"),
    ],
    ids=["missing", "of another architecture", "damaged"],
)
def test_weights_that_cannot_be_begun_with_are_refused_and_nothing_is_written(
    trained, tmp_path, gradshard, spoil, sentence
):
    project = trained.copy_to(tmp_path / "project")
    (project.path / "models/robust/moved-10.safetensors").unlink()
    spoil(project.path / "models/static/D.safetensors")
    code, said = gradshard(project, "train-robust", "moved", "--seed", "10")
    assert code == 2
    assert sentence in said
    assert not (project.path / "models/robust/moved-10.safetensors").exists()
