"""A project without one part or another: every stage runs, says what there is not, and the report leaves it out."""

import json
import re
from itertools import combinations

import numpy as np
import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import check_params
from gradshard.storage.formats.results import read_matrix
from tests.helpers.imagefolders import write_folder
from tests.helpers.projects import Project, call, new_project
from tests.helpers.switches import SWITCHES

ALONE = "training images"
PAIRS = list(combinations(SWITCHES, 2))
# Rows of a Hadamard matrix of order 12 (Paley): of any two parts each is off without the other, both are, and neither.
_SQUARES = {1, 3, 4, 5, 9}
RUNS = [[part for number, part in enumerate(SWITCHES) if (number + shift) % 11 in _SQUARES] for shift in range(11)]
# What the page has of each part, where it is on.
SHOWN = {
    "attacks": r"examples transferred between models",
    "pictures": r"\(figure 1\)",
    "diagnoses": r"Can this gradient be trusted",
    "gradients": r"Norm of the input gradient",
    "queries": r"FGSM from a substitute",
    "forest": r"A random forest of",
}
STAGES = ("sources", "digests", "evaluate", "analyze", "blackbox", "report")


@pytest.mark.parametrize("profile", list(profiles()))
def test_every_profile_can_be_without_any_two_parts(profile):
    for pair in PAIRS:
        params = YAML(typ="safe", pure=True).load(profiles()[profile])
        if ALONE in pair and params["dataset"]["name"] != "imagefolder":
            continue
        for part in pair:
            SWITCHES[part](params)
        check_params(params, where=" and ".join(pair))


def least(params: dict) -> None:
    """The least of every part."""
    models = ["A", "A_adv"]
    del params["static"]["D"], params["signs"]["A"], params["signs"]["D"]
    for model in params["static"].values():
        model["epochs"] = 1
    params["robust"] = {"A_adv": {"architecture": "D", "sources": ["C"], "epochs": 1}}
    params["evaluation"].update(
        targets=models, attacks={"fgsm": ["A", "B"]}, illustrated=["A"], diagnosed=["A"], sweep=[0, 1]
    )
    params["attack"]["steps"] = 2
    params["analysis"].update(models=["A"], examples=5, plane={"model": "A", "source": "B", "points": 1})
    params["blackbox"].update(targets=["A"], examples=20)
    params["blackbox"]["substitute"].update(images=20, rounds=1, epochs=1, sweep=[])
    params["blackbox"]["estimation"].update(examples=2, groups=[8])
    params["blackbox"]["forest"].update(trees=3, sweep=[])


def run(project: Project, *stages: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        for stage in stages:
            assert call(patch, *stage.split()) == 0, stage


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits) -> Project:
    """Digits and all models."""
    project = new_project(tmp_path_factory.mktemp("whole") / "project", digits, train=100)
    project.edit(least)
    trained = ["train-static A", "train-static B", "train-static C", "precompute C", "train-robust A_adv"]
    run(project, "prepare", *trained)
    return project


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, digits) -> Project:
    """Coloured images to test on, none to train on, and models with random weights."""
    project = new_project(tmp_path_factory.mktemp("untrained") / "project", digits)
    write_folder(project.path / "images", digits, train=0, test=60)

    def change(params: dict) -> None:
        least(params)
        params["dataset"] = {"name": "imagefolder", "path": "images", "size": 32}
        SWITCHES[ALONE](params)

    project.edit(change)
    run(project, "prepare", *(f"train-static {name}" for name in "ABC"))
    return project


def test_the_runs_have_every_two_parts_off_together_and_apart():
    for one, other in PAIRS:
        assert {(one in run, other in run) for run in RUNS} == {(a, b) for a in (True, False) for b in (True, False)}


@pytest.mark.slow
@pytest.mark.parametrize("off", RUNS, ids=", ".join)
def test_every_stage_runs_without_any_two_parts(whole, untrained, tmp_path, off):
    base = untrained if ALONE in off else whole
    project = base.copy_to(tmp_path / "project")
    for part in off:
        project.edit(SWITCHES[part])
    run(project, *STAGES)
    page = (project.path / "report/index.html").read_text()
    assert not re.search(r"<tbody>\s*</tbody>", page), "no table is empty"
    # Nobody transfers an example to nobody, nor asks nobody.
    missing = {*off, *({"forest"} if ALONE in off else ()), *({"attacks"} if "targets" in off else ())}
    for part, words in SHOWN.items():
        assert bool(re.search(words, page)) == (part not in missing), part


def test_a_stage_without_work_says_so_and_writes_an_empty_result(whole, tmp_path, gradshard):
    project = whole.copy_to(tmp_path / "project")
    for part in ("targets", "attacks", "pictures", "diagnoses", "gradients", "plane", "queries", "forest"):
        project.edit(SWITCHES[part])
    said = {}
    for stage in STAGES:
        code, said[stage] = gradshard(project, stage)
        assert code == 0, said[stage]
    assert "evaluation.targets is empty: no error to measure" in said["evaluate"]
    assert "analysis names no model and no plane: nothing to measure" in said["analyze"]
    assert "blackbox names no target and no source of a forest: nobody is asked" in said["blackbox"]
    assert read_matrix(project.path / "evaluation/10/matrix.parquet") == []
    assert json.loads((project.path / "analysis/10/gradients.json").read_text())["models"] == {}
    with np.load(project.path / "analysis/10/planes.npz") as planes:
        assert planes["full"].shape == (0, 41, 41)
    assert json.loads((project.path / "blackbox/10/results.json").read_text())["targets"] == {}
    page = (project.path / "report/index.html").read_text()
    assert re.findall(r'<h2 id="(.*?)"', page) == ["training", "origin"]
