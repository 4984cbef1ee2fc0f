"""Robust models that are trained on stores alone, on combined losses, and judged on rows held back; whole stages."""

import csv
import json
import os
import signal
import time

import pytest

from gradshard.storage.formats import checkpoints
from tests.helpers.projects import files, new_project

pytestmark = pytest.mark.slow

FOLDERS = ("models/robust", "models/snapshots", "training")
PUBDEF = {"architecture": "D", "sources": ["A", "C", "R"], "self": False, "clean_weight": 0.25, "weights": {"C": 2}}
RANDOM = {"model": "A", "gradient": "exact", "label": "predicted", "attack": "rand_fgsm", "eps": 0.3, "alpha": 0.05}
MODELS = {
    "stores": PUBDEF | {"epochs": 4, "snapshots": [1, 2, 3, 4], "schedule": "loss_weighted"},
    "averaged": {"architecture": "D", "epochs": 4, "sources": ["A"], "snapshots": [2], "training": {"average": 0.9}},
    "alone": {"architecture": "D", "epochs": 2},
}


def change(params):
    params["robust"] |= MODELS
    params["signs"]["R"] = RANDOM | {"copies": 3}
    params["adversarial"]["held_back"] = {"rows": 100, "every": 2, "steps": 3, "seed": 5}
    params["evaluation"].update(targets=["stores@best"], attacks={}, illustrated=[], diagnosed=[])


@pytest.fixture(scope="module")
def before(tmp_path_factory, digits):
    """A project that has everything that robust models are trained on."""
    project = new_project(tmp_path_factory.mktemp("robust") / "project", digits)
    project.edit(change)
    for stage in (["prepare"], *(["train-static", name] for name in "AC"), *(["precompute", name] for name in "ACR")):
        project.run(*stage)
    return project


@pytest.fixture(scope="module")
def trained(before, tmp_path_factory):
    project = before.copy_to(tmp_path_factory.mktemp("trained") / "project")
    for name in MODELS:
        project.run("train-robust", name)
    return project


def curves(project, run):
    return list(csv.DictReader((project.path / "training" / f"{run}.tsv").open(), delimiter="\t"))


def tensors(project, place):
    return checkpoints.tensors_digest(checkpoints.load(project.path / place)[0], "D")


def test_a_model_of_stores_alone_makes_no_live_pass(trained):
    found = json.loads((trained.path / "training/stores-10.json").read_text())
    assert found["steps"] == 4 * 16  # batches of 32 of the 500 rows that are left
    assert found["live_steps"] == 0


def test_errors_on_held_back_rows_are_in_the_curves_every_n_epochs(trained):
    lines = curves(trained, "stores-10")
    measured = [line for line in lines if line["held_back_pgd_error"] != "nan"]
    assert [float(line["epoch"]) for line in measured] == [2, 4]
    assert all(0 <= float(line["held_back_transfer_error"]) <= 1 for line in measured)
    assert "held_back_transfer_error" not in curves(trained, "alone-10")[0]


def test_the_best_snapshot_is_that_of_the_least_error(trained):
    measured = {
        float(line["epoch"]): float(line["held_back_transfer_error"])
        for line in curves(trained, "stores-10")
        if line["held_back_pgd_error"] != "nan"
    }
    best = json.loads((trained.path / "training/stores-10.json").read_text())["held_back"]["best"]
    assert best["epoch"] == min(measured, key=lambda epoch: (measured[epoch], epoch))
    assert best["transfer_error"] == pytest.approx(measured[best["epoch"]])
    folder = "models/snapshots/stores-10/stores-10"
    assert tensors(trained, f"{folder}@best.safetensors") == tensors(trained, f"{folder}@{best['epoch']}.safetensors")


def test_the_best_snapshot_is_a_target_like_any_other(trained, tmp_path):
    project = trained.copy_to(tmp_path / "project")
    project.run("train-static", "B")  # the holdout
    project.run("evaluate")
    assert "stores@best" in (project.path / "evaluation/10/metrics.json").read_text()


@pytest.mark.parametrize("name", ["stores", "averaged"])
def test_killed_while_averages_move_it_ends_with_the_same_bytes(before, trained, tmp_path, name):
    """Of the losses under each source, or of the weights."""
    project = before.copy_to(tmp_path / "project")
    process = project.popen("train-robust", name)
    deadline = time.monotonic() + 90
    while not list(project.path.glob(f".partial/train-robust-{name}-10-*/checkpoint.safetensors")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(project.path.glob("models/robust/*"))
    assert "going on from step " in project.run("train-robust", name)
    expected = {path: content for path, content in files(trained, *FOLDERS).items() if f"{name}-10" in path}
    assert {path: content for path, content in files(project, *FOLDERS).items() if f"{name}-10" in path} == expected


def test_what_a_model_says_otherwise_of_training_is_its_own(trained):
    """The average is what is published, kept as snapshots, and judged best."""
    recorded = {
        name: checkpoints.load(trained.path / f"models/robust/{name}-10.safetensors")[1]["recipe"]["training"]
        for name in MODELS
    }
    assert recorded["averaged"] == recorded["alone"] | {"average": 0.9}
    best = json.loads((trained.path / "training/averaged-10.json").read_text())["held_back"]["best"]["epoch"]
    folder = "models/snapshots/averaged-10/averaged-10"
    last = {2: f"{folder}@2.safetensors", 4: "models/robust/averaged-10.safetensors"}[best]
    assert tensors(trained, f"{folder}@best.safetensors") == tensors(trained, last)


def test_holding_back_every_row_is_refused(before, tmp_path, gradshard):
    project = before.copy_to(tmp_path / "project")
    project.edit(lambda params: params["adversarial"]["held_back"].update(rows=600))
    code, said = gradshard(project, "train-robust", "alone")
    assert code == 2
    assert "adversarial.held_back.rows is 600 of 600 training images, which leaves none to train on" in said
