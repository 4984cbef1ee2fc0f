"""Other papers' training methods as a stage: trained, counted, and resumed to the same bytes; whole stages."""

import json

import pytest

from tests.helpers.projects import new_project

pytestmark = pytest.mark.slow

PGD = {"architecture": "D", "epochs": 3, "method": "pgd_at", "steps": 5}


def change(params):
    params["robust"]["pgd"] = PGD
    params["adversarial"]["held_back"] = {"rows": 100, "every": 3, "steps": 10, "seed": 5}
    params["training"]["batch"] = 50


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    project = new_project(tmp_path_factory.mktemp("methods") / "project", digits)
    project.edit(change)
    project.run("prepare")
    project.run("train-robust", "pgd")
    return project


def test_the_passes_of_a_run_are_counted(trained):
    found = json.loads((trained.path / "training/pgd-10.json").read_text())
    images = 3 * 500
    assert found["passes"] == {"images": images, "forward": 6 * images, "backward": 6 * images}
    assert found["method"] == "PGD-AT"
